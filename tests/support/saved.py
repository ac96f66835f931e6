"""What a step saves for its backward pass, counted on tensors without data: any size costs nothing.

Attention runs the kernels that CUDA takes; those of the CPU save the whole matrix of weights where
there is a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ocrtrain.cost.memory import MicroBatch
from ocrtrain.model import sam_attention
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import ModelConfig

aten = torch.ops.aten


def cuda_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """`scaled_dot_product_attention` by CUDA's kernels: flash in bf16, else memory-efficient, with
    a bias padded to 16 columns."""
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
        attn_mask = None if attn_mask is None else attn_mask.to(kind)
    with torch.autocast("cpu", enabled=False):
        if attn_mask is None and query.dtype == torch.bfloat16:
            return aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, scale=scale
            )[0]
        if attn_mask is not None and attn_mask.shape[-1] % 16:
            keys = attn_mask.shape[-1]
            attn_mask = torch.nn.functional.pad(attn_mask, (0, 16 - keys % 16))[..., :keys]
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
        )[0]


def saved_bytes(
    config: ModelConfig,
    batch: MicroBatch,
    *,
    frozen: Sequence[str] = (),
    samples: int = 1,
    sdpa: Any = cuda_attention,
) -> int:
    """Bytes saved by encoder and decoder (all but the head) for rows of `samples` samples each, and
    no storage twice; parameters are not counted, their bf16 copies are."""
    seen: dict[int, Any] = {}
    hooks = torch.autograd.graph.saved_tensors_hooks

    def keep(packed: Any) -> Any:
        for tensor in packed if isinstance(packed, tuple) else (packed,):
            if isinstance(tensor, Tensor):  # its storage is kept alive: its address is not reused
                seen.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        return packed

    def watched(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> Any:
        """Hooks of SAM's attention, which hide from ours what they keep."""
        return hooks(lambda tensor: keep(pack(tensor)), unpack)

    fake, attention = (
        FakeTensorMode(),
        patch("torch.nn.functional.scaled_dot_product_attention", sdpa),
    )
    with fake, attention, patch.object(sam_attention, "saved_tensors_hooks", watched):
        model = OcrModel(config, image_size=64, image_token=0).train()
        model.freeze(frozen)
        model.checkpoint_blocks(batch.checkpointing)
        ids = torch.ones(batch.rows, batch.row_length, dtype=torch.long)
        slots = sum(count * image_slots(size) for size, count in batch.images.items())
        slots_at = torch.ones(slots, dtype=torch.long)
        pixels = [torch.empty(count, 3, size, size) for size, count in batch.images.items()]
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        length = batch.row_length // samples
        lengths = (*(length,) * (samples - 1), batch.row_length - (samples - 1) * length)
        autocast = torch.autocast("cpu", torch.bfloat16) if batch.bf16 else nullcontext()
        with autocast, hooks(keep, lambda tensor: tensor):
            parts = [model.encoder(images).flatten(0, 1) for images in pixels]
            features = torch.cat(parts) if len(parts) > 1 else parts[0] if parts else None
            embeds = model.embed(ids, features, slots_at)
            states = model.hidden(embeds, ids, (lengths,) * batch.rows)
        assert states.requires_grad
    return sum(storage.nbytes() for at, storage in seen.items() if at not in own)
