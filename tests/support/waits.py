"""Fails where a program would wait for a GPU: where a value of a tensor decides what runs next.

A GPU is not needed to see that: the operations which ask for a value are the same on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {
    "_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero",
    "nonzero_static", "_unique2", "unique_consecutive", "unique_dim", "bincount",
}  # fmt: skip
"""Operations of aten whose result, or whose size, is read from the device."""


class NoWaits(TorchDispatchMode):
    """Raises AssertionError where an operation would wait for a GPU, in this thread."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{func} waits for the device"
        if name.startswith("index"):  # by a mask: as many elements as it has true ones
            for index in args[1] if isinstance(args[1], (list, tuple)) else ():
                assert index is None or index.dtype != torch.bool, f"{func} by a mask waits"
        return func(*args, **(kwargs or {}))
