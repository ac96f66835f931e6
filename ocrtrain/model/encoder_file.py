"""Files that hold a vision encoder: everything but the decoder, from one stage to the next.

Owner of `deepencoder_*.safetensors`: tensors under the original's names
(`ocrtrain.model.tensor_names`), and in the header the format version, the model config, what the
writer wants to be known, and a digest over all of it, because safetensors notices no flipped bit.
The original's `deepencoder_*.pt` is read too, by torch's reader of plain tensors, which runs no
code; it has no digest to verify.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ocrdata.errors import WeightsError, first_line
from ocrdata.storage.files import atomic_file, explain_disk
from ocrdata.storage.sealed import canonical_spaced, version_problem
from ocrtrain.model.tensor_names import Tensors, assign, from_deepencoder, to_deepencoder

if TYPE_CHECKING:
    from ocrtrain.model.ocr_model import OcrModel

FORMAT = "deepencoder"
VERSION = 1


def tensors_digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """xxh3_128 over the header's JSON values and the tensors: names, types, shapes and bytes."""
    digest = xxhash.xxh3_128(canonical_spaced(header))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_deepencoder(model: OcrModel, path: Path, meta: Mapping[str, Any]) -> None:
    """Write the encoder of `model` with `meta` (JSON values) in the header, complete or not at all.

    Raises DiskError where the disk refuses.
    """
    tensors = {
        name: value.cpu().contiguous() for name, value in to_deepencoder(model.encoder).items()
    }
    header: dict[str, Any] = {
        "version": VERSION,
        "model": dataclasses.asdict(model.config),
        "image_size": model.image_size,
        "meta": dict(meta),
    }
    header["digest"] = tensors_digest(tensors, header)
    with atomic_file(path) as file:
        # One entry: safetensors writes several in any order, and the same encoder is the same file.
        file.write(save(tensors, {FORMAT: canonical_spaced(header).decode()}))


def load_deepencoder(model: OcrModel, path: Path) -> dict[str, Any]:
    """Copy the encoder in `path` into `model`; returns the `meta` it was saved with ({} for .pt).

    The digest is verified first. Raises WeightsError where the file is missing, damaged, of a newer
    version, or does not fit the model; the model is then unchanged.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; stage 1 writes deepencoder_*.safetensors")
    meta: dict[str, Any] = {}
    with explain_disk(path):
        if _is_torch_file(path):
            tensors = read_torch_file(path)
        else:
            tensors, meta = _read(path)
    ours = from_deepencoder(tensors)
    parts = ("sam.", "clip.", "projector.", "image_newline", "view_separator")
    if not any(name.startswith(parts) for name in ours):
        first = next(iter(ours), "nothing")
        raise WeightsError(f"{path}: holds no vision encoder; its first tensor is {first}")
    assign(model.encoder, ours, what=str(path))
    return meta


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and meta of one of our files, verified."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header: dict[str, Any] = json.loads(metadata.get(FORMAT, "{}"))
        tensors = load(data)
    except (
        SafetensorError,
        struct.error,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as exc:
        raise WeightsError(f"{path}: cannot be read as safetensors: {exc}") from exc
    if not header:
        raise WeightsError(f"{path}: is no {FORMAT} file; stage 1 writes deepencoder_*.safetensors")
    problem, digest = version_problem(header.get("version"), VERSION), header.pop("digest", None)
    if problem:
        raise WeightsError(f"{path}: {problem}")
    if tensors_digest(tensors, header) != digest:
        raise WeightsError(f"{path}: digest differs: the file was damaged after it was written")
    meta: dict[str, Any] = header["meta"]
    return tensors, meta


def _is_torch_file(path: Path) -> bool:
    """Whether `path` is not safetensors, whose JSON header begins at byte 8."""
    with open(path, "rb") as file:
        return file.read(9)[8:] != b"{"


def read_torch_file(path: Path) -> Tensors:
    """Tensors by name of a file of torch.save, executing nothing in it.

    Raises WeightsError where it is damaged, or asks for anything but plain tensors.
    """
    try:
        # torch's reader of weights only admits tensors and plain containers, and calls nothing.
        value = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as exc:
        raise WeightsError(
            f"{path}: holds more than tensors, or is damaged; refused, since reading it could run "
            "code\n  save it again as a plain state dict"
        ) from exc
    except Exception as exc:  # on damaged bytes the reader fails in a dozen ways, none documented
        raise WeightsError(f"{path}: cannot be read: {first_line(exc)}") from exc
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise WeightsError(f"{path}: is no state dict: a mapping of names to tensors is needed")
    return {str(name): tensor for name, tensor in value.items()}
