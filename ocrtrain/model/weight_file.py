"""Files of tensors, read by name: safetensors, and those that `torch.save` wrote.

In: paths. Out: names and shapes at once, values when they are asked for, so that a file of which a
part is needed is not read as a whole. `torch.save`'s are read by torch's `weights_only` reader,
which runs no code. What the tensors mean is left to `ocrtrain.model.tensor_names`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ocrdata.errors import WeightsError, first_line
from ocrdata.storage.files import explain_disk

Shape = tuple[int, ...]

INNER = ("model", "state_dict", "model_state_dict", "module", "model_state")
"""Keys under which trainers keep the weights in a file that holds other things too."""

RECORDS = ("config", "model_config", "model_args", "hparams")
"""Keys under which they keep the sizes of the model."""


@dataclass(frozen=True)
class StoredTensors:
    """Tensors by name: their shapes, and a function that reads one.

    `record` is what a file of `torch.save` says about the sizes of its model; `beside` are the
    names of what else it holds, such as the state of an optimizer.
    """

    shapes: dict[str, Shape]
    read: Callable[[str], Tensor]
    record: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


def in_memory(
    tensors: Mapping[str, Tensor], record: dict[str, Any] | None = None, beside: Sequence[str] = ()
) -> StoredTensors:
    """Tensors that have been read."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return StoredTensors(shapes, tensors.__getitem__, record or {}, tuple(beside))


def open_tensors(paths: Sequence[Path]) -> StoredTensors:
    """The tensors of one file, or of several parts of one.

    Raises WeightsError where a file is corrupted or none of tensors, DiskError where it cannot be
    read.
    """
    files = []
    for path in paths:
        with explain_disk(path):
            files.append(_open_safetensors(path) if is_safetensors(path) else _open_torch(path))
    if len(files) == 1:
        return files[0]
    owner = {name: file for file in files for name in file.shapes}
    shapes = {name: file.shapes[name] for name, file in owner.items()}
    return StoredTensors(shapes, lambda name: owner[name].read(name))


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors, which has "{" at byte 8. Raises WeightsError where it is
    missing, OSError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{"
    except FileNotFoundError as exc:
        raise WeightsError(f"{path}: the file is missing") from exc


def _open_safetensors(path: Path) -> StoredTensors:
    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as exc:
        raise WeightsError(f"{path}: cannot be read as safetensors: {exc}") from exc
    return StoredTensors(shapes, file.get_tensor)


def _open_torch(path: Path) -> StoredTensors:
    tensors, record, beside = _unpack(read_torch_file(path), path)
    return in_memory(tensors, record, beside)


def read_torch_file(path: Path) -> Any:
    """What a file of `torch.save` holds, tensors mapped from the disk where its format allows it;
    no code in it is executed.

    Raises WeightsError where it is corrupted, or contains anything but tensors and plain values.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    # A zip file, or the pickle protocol that older versions of torch began with.
    if not head.startswith((b"PK", b"\x80")):
        raise WeightsError(f"{path}: {_what_it_is(head)}; weights are .safetensors or .pt files")
    try:
        # `weights_only` accepts tensors and plain containers, and calls nothing.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=head.startswith(b"PK"))
    except UnpicklingError as exc:
        raise WeightsError(
            f"{path}: contains objects other than tensors, or is corrupted; refused because "
            "reading it could run code; save it again as a plain state dict"
        ) from exc
    except Exception as exc:  # what the reader raises on corrupted bytes is not documented
        raise WeightsError(f"{path}: cannot be read: {first_line(exc)}") from exc


def _what_it_is(head: bytes) -> str:
    """What a file that holds no weights begins like."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the file, which `git lfs pull` fetches"
    if head.startswith(b"GGUF"):
        return "a GGUF file, which this project does not read"
    start = head.decode("utf-8", errors="replace").strip().partition("\n")[0].strip()[:30]
    if not start.isprintable() or "\ufffd" in start:
        return "neither safetensors nor a file of torch.save"
    return f"a text file (it begins with {start!r})"


def _unpack(value: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """The state dict in what a trainer saved, what is recorded of its model, and the names of the
    rest."""
    record: dict[str, Any] = {}
    beside: list[str] = []
    while isinstance(value, dict) and not _is_state_dict(value):
        inner = [key for key in INNER if isinstance(value.get(key), dict)]
        if len(inner) != 1:
            break
        for key, other in value.items():
            if key in RECORDS and isinstance(other, dict):
                record.update(other)
            elif key != inner[0]:
                beside.append(str(key))
        value = value[inner[0]]
    if not _is_state_dict(value):
        keys = (
            f" (its keys: {', '.join(map(str, [*value][:5]))})" if isinstance(value, dict) else ""
        )
        raise WeightsError(f"{path}: not a state dict, which maps names to tensors{keys}")
    return {str(name): tensor.detach() for name, tensor in value.items()}, record, beside


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, Tensor) for one in value.values())
