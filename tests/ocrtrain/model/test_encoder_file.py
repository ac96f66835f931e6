"""Encoder files: round trip, and refusal of corrupted and other files."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ocrdata.errors import DiskError, WeightsError
from ocrtrain.model.encoder_file import (
    read_deepencoder,
    save_deepencoder,
    tensors_digest,
)
from ocrtrain.model.ocr_model import OcrModel, build_model
from ocrtrain.model.tensor_names import to_deepencoder
from tests.support.encoders import pixels, randomise
from tests.support.pretrained import CONFIG, model, random_model, take


def outputs(target: OcrModel) -> Tensor:
    with torch.no_grad():
        return target.encoder(pixels(128))


def test_deepencoder_round_trip(tmp_path: Path) -> None:
    source, target = random_model(seed=3), model(seed=1)
    gpt = {n: v.detach().clone() for n, v in target.gpt.named_parameters()}
    path = tmp_path / "deepencoder_001000.safetensors"
    save_deepencoder(source, path, {"step": 1000, "run": "ünï"})
    take(target, path)
    assert read_deepencoder(path)[1]["meta"] == {"step": 1000, "run": "ünï"}
    assert torch.equal(outputs(target), outputs(source))
    assert all(torch.equal(v, gpt[n]) for n, v in target.gpt.named_parameters())
    assert "gpt" not in " ".join(load_file(path))  # any safetensors reader opens it
    first = path.read_bytes()
    save_deepencoder(source, path, {"step": 1000, "run": "ünï"})
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("spelling", ["view_separator", "view_seperator"])
def test_a_pt_file_of_the_original_project_loads(tmp_path: Path, spelling: str) -> None:
    source, target = random_model(seed=3), model(seed=1)
    tensors = to_deepencoder(source.encoder)
    tensors[spelling] = tensors.pop("view_separator")
    embeddings = "vision_model.embeddings."
    tensors[f"{embeddings}patch_embedding.weight"] = torch.ones(CONFIG.clip_width, 3, 14, 14)
    tensors[f"{embeddings}position_ids"] = torch.arange(17)[None]
    assert "vision_model.transformer.layers.1.self_attn.qkv_proj.weight" in tensors
    assert "sam_model.neck.3.bias" in tensors and "sam_model.net_3.weight" in tensors
    for number, name in enumerate(("deepencoder_1000.pt", "old.pt")):
        path = tmp_path / name
        torch.save(tensors, path, _use_new_zipfile_serialization=number == 0)
        take(target, path)
        assert torch.equal(outputs(target), outputs(source))
        randomise(target, seed=8)


def test_a_pt_file_without_an_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder_1000.pt"
    torch.save([torch.ones(3)], path)
    with pytest.raises(WeightsError, match="not a state dict"):
        take(model(), path)
    torch.save({"lm_head.weight": torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        take(model(), path)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder_001000.safetensors"
    target = model()
    save_deepencoder(target, path, {"step": 1})
    good = path.read_bytes()
    before = {n: v.detach().clone() for n, v in target.named_parameters()}
    draw = random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    offsets = [draw.randrange(header) for _ in range(150)]
    offsets += [draw.randrange(header, len(good)) for _ in range(50)]
    for offset in offsets:
        corrupted = bytearray(good)
        corrupted[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(corrupted)
        with pytest.raises(WeightsError):
            take(target, path)
    path.write_bytes(good[:-1])
    with pytest.raises(WeightsError):
        take(target, path)
    assert all(torch.equal(v, before[n]) for n, v in target.named_parameters())


def test_other_safetensors_and_newer_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    tensors = {n: v.contiguous() for n, v in to_deepencoder(model().encoder).items()}
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="not a deepencoder file"):
        take(model(), path)
    for header in ("[1]", "1", '"x"', "null"):
        save_file(tensors, path, metadata={"deepencoder": header})
        with pytest.raises(WeightsError, match="not a deepencoder file"):
            take(model(), path)
    save_file(tensors, path, metadata={"deepencoder": json.dumps({"version": 2})})
    with pytest.raises(WeightsError, match=r"version 2\b.* 1\b"):
        take(model(), path)


def test_an_encoder_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    save_deepencoder(model(), path, {})
    other = dataclasses.replace(CONFIG, clip_layers=1)
    with pytest.raises(
        WeightsError, match=r"clip_layers is 2, .* has clip_layers 1; set --clip-layers 2"
    ):
        take(build_model(other, image_size=128, image_token=9, seed=0), path)


def test_saving_below_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        save_deepencoder(model(), tmp_path / "file" / "x.safetensors", {})


@pytest.mark.parametrize("cut", [0, 4, 8, 9, 100])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "deepencoder.safetensors"
    save_deepencoder(model(), path, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"deepencoder\.safetensors: "):
        take(model(), path)


def test_the_digest_depends_on_names_types_shapes_bytes_and_header() -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.int32)}
    header = {"version": 1, "meta": {"step": 3, "run": "x"}}
    digest = tensors_digest(tensors, header)
    assert len(digest) == 32
    reordered = {name: tensors[name] for name in reversed(tensors)}
    assert tensors_digest(reordered, {"meta": {"run": "x", "step": 3}, "version": 1}) == digest
    strided = {**tensors, "a": torch.arange(12.0).reshape(6, 2)[:, 0] / 2}
    assert tensors_digest(strided, header) == digest
    others = [
        ({**tensors, "a": tensors["a"] + 1}, header),
        ({**tensors, "a": tensors["a"].reshape(2, 3)}, header),
        ({**tensors, "b": tensors["b"].view(torch.float32)}, header),
        ({"c": tensors["a"], "b": tensors["b"]}, header),
        ({"a": tensors["a"]}, header),
        (tensors, {**header, "meta": {"step": 4, "run": "x"}}),
    ]
    found = {digest, *(tensors_digest(values, head) for values, head in others)}
    assert len(found) == 1 + len(others)


def test_meta_must_be_json(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    for meta in ({"loss": float("nan")}, {"when": object()}):
        with pytest.raises((ValueError, TypeError)):
            save_deepencoder(model(), path, meta)
    assert list(tmp_path.iterdir()) == []


def test_loading_keeps_dtype_and_requires_grad(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    source = random_model(seed=3)
    save_deepencoder(source, path, {})
    target = model(seed=1).bfloat16()
    target.freeze(["sam"])
    take(target, path)
    for name, value in target.encoder.named_parameters():
        assert value.dtype == torch.bfloat16
        assert value.requires_grad != name.startswith("sam.")
        assert torch.equal(value, source.encoder.get_parameter(name).bfloat16())
