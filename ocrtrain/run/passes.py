"""From a batch to the inputs of its forward passes, on the device before the step begins.

In the loader's threads a batch is split into micro-batches, and its tensors are copied to the GPU:
from pinned memory, on a stream of their own, while the GPU computes the step before. The step waits
for the copies on the GPU; the program itself does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocrdata.reading.prefetch import Assembly
from ocrtrain.data.batch import Batch
from ocrtrain.model.inputs import ModelInputs
from ocrtrain.model.ocr_model import OcrModel


@dataclass(frozen=True)
class Passes:
    """A batch, and the inputs of its forward passes on the device."""

    batch: Batch
    inputs: tuple[ModelInputs, ...]
    arrival: torch.cuda.Event | None = None  # when the copies end

    @property
    def positions(self) -> int:
        """Positions of all passes, padding included."""
        return sum(inputs.input_ids.numel() for inputs in self.inputs)

    def arrived(self) -> Iterator[ModelInputs]:
        """The inputs, for use on the current stream."""
        for inputs in self.inputs:
            if self.arrival is not None:
                stream = torch.cuda.current_stream(inputs.input_ids.device)
                stream.wait_event(self.arrival)
                for tensor in inputs.tensors():
                    tensor.record_stream(stream)  # its memory is not reused before it is read
            yield inputs


class PassMaker:
    """How the `Passes` of a step are made, for the prefetcher: batches of `assembly`, at most
    `rows` rows a pass, on `device`."""

    def __init__(
        self,
        assembly: Callable[[int], Assembly[Any, Batch]],
        model: OcrModel,
        *,
        rows: int,
        device: torch.device,
    ) -> None:
        self._assembly, self._prepare = assembly, model.prepare
        self._rows, self._device = rows, device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, step: int) -> Assembly[Any, Passes]:
        """How those of a step are made."""
        made = self._assembly(step)
        return Assembly(made.parts, lambda samples: self.passes(made.join(samples)))

    def passes(self, batch: Batch) -> Passes:
        """The passes of a batch on the CPU; the copies to a GPU have begun."""
        inputs = [
            self._prepare(
                part.input_ids, part.position_ids, part.targets, part.images, part.layouts
            )
            for part in batch.split(self._rows)
        ]
        if self._stream is None:
            return Passes(batch, tuple(inputs))
        with torch.cuda.stream(self._stream):
            copied = tuple(one.map(self._copy) for one in inputs)
            return Passes(batch, copied, self._stream.record_event())

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.contiguous().pin_memory().to(self._device, non_blocking=True)
