"""Files of a trained vision encoder, `deepencoder_*.safetensors`: all weights but the decoder's.

Tensors have DeepSeek-OCR's names (`ocrtrain.model.tensor_names`). The header holds the format
version, the model config, metadata of the writer, and a digest over all of it, because safetensors
does not detect flipped bits. `deepencoder_*.pt` of the original project is read too, with torch's
`weights_only` reader, which runs no code; it has no digest to verify.
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
    """xxh3_128 over the header's JSON values and the tensors' names, types, shapes and bytes."""
    digest = xxhash.xxh3_128(canonical_spaced(header))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_deepencoder(model: OcrModel, path: Path, meta: Mapping[str, Any]) -> None:
    """Write the encoder of `model` atomically, with `meta` (JSON values) in the header.

    Raises DiskError where the file cannot be written, ValueError or TypeError where `meta` is not
    JSON.
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
        # A single entry: safetensors writes several in random order, which would change the bytes.
        file.write(save(tensors, {FORMAT: canonical_spaced(header).decode()}))


def load_deepencoder(model: OcrModel, path: Path) -> dict[str, Any]:
    """Copy the encoder weights in `path` into `model`; returns the file's `meta` ({} for .pt).

    The digest is verified first. Raises WeightsError where the file is missing, corrupted, of a
    newer version, or does not fit the model, DiskError where it cannot be read; the model is then
    unchanged.
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
        raise WeightsError(f"{path}: contains no vision encoder; its first tensor is {first}")
    assign(model.encoder, ours, what=str(path))
    return meta


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Verified tensors and `meta` of a file that `save_deepencoder` wrote."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header: Any = json.loads(metadata.get(FORMAT, "{}"))
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
    if not (isinstance(header, dict) and header):
        raise WeightsError(f"{path}: not a {FORMAT} file; stage 1 writes deepencoder_*.safetensors")
    problem, digest = version_problem(header.get("version"), VERSION), header.pop("digest", None)
    if problem:
        raise WeightsError(f"{path}: {problem}")
    if tensors_digest(tensors, header) != digest:
        raise WeightsError(
            f"{path}: checksum mismatch: the file was corrupted after it was written"
        )
    meta: dict[str, Any] = header["meta"]
    return tensors, meta


def _is_torch_file(path: Path) -> bool:
    """Whether `path` is not a safetensors file, which has "{" at byte 8."""
    with open(path, "rb") as file:
        return file.read(9)[8:] != b"{"


def read_torch_file(path: Path) -> Tensors:
    """Tensors by name in a file of `torch.save`; no code in it is executed.

    Raises WeightsError where it is corrupted or contains anything but a dict of tensors.
    """
    try:
        # `weights_only` accepts tensors and plain containers, and calls nothing.
        value = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as exc:
        raise WeightsError(
            f"{path}: contains objects other than tensors, or is corrupted; refused because "
            "reading it could run code\n  Save it again as a plain state dict"
        ) from exc
    except Exception as exc:  # what the reader raises on corrupted bytes is not documented
        raise WeightsError(f"{path}: cannot be read: {first_line(exc)}") from exc
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise WeightsError(f"{path}: not a state dict, which maps names to tensors")
    return {str(name): tensor for name, tensor in value.items()}
