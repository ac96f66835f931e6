"""Files of a trained vision encoder, `deepencoder_*.safetensors`: all weights but the decoder's.

Tensors have DeepSeek-OCR's names (`ocrtrain.model.tensor_names`). The header holds the format
version, the model config, metadata of the writer, and a digest over all of it, because safetensors
does not detect flipped bits. They are copied into a model by `ocrtrain.model.pretrained`, like the
files of others.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ocrdata.errors import WeightsError
from ocrdata.storage.files import atomic_file, explain_disk
from ocrdata.storage.sealed import canonical_spaced, version_problem
from ocrtrain.model.tensor_names import Tensors, to_deepencoder

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


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file that `save_deepencoder` wrote, not verified; None for
    another one. Raises WeightsError where it is corrupted, or has the name of such a file but is
    none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata[FORMAT]) if FORMAT in metadata else None
    except (SafetensorError, ValueError, RecursionError) as exc:
        raise WeightsError(f"{path}: cannot be read as safetensors: {exc}") from exc
    if header is None and not path.name.startswith(FORMAT):
        return None
    if not (isinstance(header, dict) and header):
        raise WeightsError(f"{path}: not a {FORMAT} file; stage 1 writes deepencoder_*.safetensors")
    problem = version_problem(header.get("version"), VERSION)
    if problem:
        raise WeightsError(f"{path}: {problem}")
    return header


def read_deepencoder(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and header of a file that `save_deepencoder` wrote, verified by its digest.

    Raises WeightsError where it is corrupted, DiskError where it cannot be read.
    """
    with explain_disk(path):
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
    digest = header.pop("digest", None) if isinstance(header, dict) else None
    if tensors_digest(tensors, header) != digest:
        raise WeightsError(
            f"{path}: checksum mismatch: the file was corrupted after it was written"
        )
    return tensors, header
