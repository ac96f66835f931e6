"""The model as the ranks of a world train it together: with torch's DDP, or sharded by FSDP2.

In: an `OcrModel` on the rank's device. Out: its loss, with gradients that are summed over all
ranks. A step whose global batch has no image never runs the vision encoder. It runs once for each
size of images; where some ranks have images, or sizes, and others not, those encode blank images
whose features count zero times: every parameter then takes part in the exchange of gradients on
every rank, and a sharded one is gathered equally often, so that none waits for another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ocrtrain.model.inputs import ModelInputs
from ocrtrain.model.ocr_model import LossSum, OcrModel
from ocrtrain.settings.world import World


class ModelOfRanks(Protocol):
    """How a rank computes its part of a step's loss, and reaches what other ranks hold."""

    shards: bool
    """Whether each rank holds only a part of every tensor."""

    def loss(self, inputs: ModelInputs, *, passes: int, last: bool) -> LossSum:
        """The loss of a micro-batch. `passes`: run the encoder at least so often, for blank images
        if need be. `last`: of the step, so that its backward pass completes the gradients."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The whole of a parameter, gradient norm or moment. All ranks must call it."""

    def place(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """The inverse, for a moment of `parameter`: what this rank holds of it."""


def for_ranks(model: OcrModel, world: World, kind: str) -> ModelOfRanks:
    """Prepare a model, whose weights are loaded, for the ranks of a world; `kind` is --parallel.

    With "ddp" the weights of rank 0 count; with "fsdp" every rank must have loaded the same.
    """
    if not world.is_distributed:
        return Alone(model)
    return Sharded(model, world) if kind == "fsdp" else Replicated(model)


class Alone:
    """A single process: the model as it is."""

    shards = False

    def __init__(self, model: OcrModel) -> None:
        self._model = model

    def loss(self, inputs: ModelInputs, *, passes: int, last: bool) -> LossSum:
        """The loss of a micro-batch."""
        return _forward(self._model, inputs, passes=passes)

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def place(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """The tensor itself."""
        return tensor


def _forward(model: nn.Module, inputs: ModelInputs, *, passes: int) -> LossSum:
    sums: LossSum = model(inputs, passes=passes)
    return sums


class Replicated(Alone):
    """DDP: every rank has all weights, and the gradients are summed after the last micro-batch.

    DDP waits for the gradients of all parameters that it wraps. So encoder and decoder are wrapped
    each on its own: a step without images exchanges those of the decoder alone.
    """

    def __init__(self, model: OcrModel) -> None:
        super().__init__(model)
        self._see = _replicate(_Part(model.encoder, model.see))
        self._read = _replicate(_Part(model.gpt, model.read))

    def loss(self, inputs: ModelInputs, *, passes: int, last: bool) -> LossSum:
        """The loss of a micro-batch."""
        with ExitStack() as stack:
            if not last:
                for wrapped in (self._see, self._read):
                    if isinstance(wrapped, nn.parallel.DistributedDataParallel):
                        stack.enter_context(wrapped.no_sync())
            features = None
            if inputs.images or passes:
                features = self._see(inputs.images, inputs.layouts, passes=passes)
            sums: LossSum = self._read(inputs, features)
            return sums


class _Part(nn.Module):
    """A half of the model as a module, for DDP: its parameters, and what it computes."""

    def __init__(self, module: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self._compute = module, compute

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self._compute(*inputs, **options)


def _replicate(part: nn.Module) -> nn.Module:
    """The part in DDP; as it is, if nothing of it is trained."""
    if not any(parameter.requires_grad for parameter in part.parameters()):
        return part
    # No buffer changes in training. torch 2.13 renamed the argument.
    wrap: Any = nn.parallel.DistributedDataParallel
    known = inspect.signature(wrap.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    wrapped: nn.Module = wrap(part, gradient_as_bucket_view=True, **{name: False})
    return wrapped


class Sharded(Alone):
    """FSDP2: every rank has a part of each tensor, and gathers a block's while it computes it."""

    shards = True

    def __init__(self, model: OcrModel, world: World) -> None:
        super().__init__(model)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
        from transformers.modeling_layers import GradientCheckpointingLayer

        mesh = init_device_mesh(torch.device(world.device).type, (world.size,))
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)  # all else
        for name in ("token_losses", "features"):
            register_fsdp_forward_method(model, name)

    def gather(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor. All ranks must call it."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def place(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """What this rank holds of a moment; a number, such as AdamW's count of steps, is whole."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(parameter, DTensor) or tensor.ndim == 0:
            return tensor
        return distribute_tensor(
            tensor, parameter.device_mesh, parameter.placements, src_data_rank=None
        )


def who_encodes(passes: Sequence[Sequence[int]]) -> list[int]:
    """For each micro-batch of a step, how often all ranks run the encoder in it, from how often
    each rank's own images need it, [ranks][micro-batches].

    As often as the rank that needs it most; and in the last one at least once if any has had images
    before, because it completes the gradients.
    """
    found = [max(counts) for counts in zip(*passes, strict=True)]
    found[-1] = max(found[-1], int(any(found)))
    return found
