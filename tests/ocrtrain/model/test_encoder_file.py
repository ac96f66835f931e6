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
    load_deepencoder,
    read_torch_file,
    save_deepencoder,
    tensors_digest,
)
from ocrtrain.model.ocr_model import OcrModel, build_model
from ocrtrain.model.tensor_names import to_deepencoder
from tests.support.encoders import pixels, randomise
from tests.support.pretrained import CONFIG, model, random_model


def outputs(target: OcrModel) -> Tensor:
    with torch.no_grad():
        return target.encoder(pixels(128))


def test_deepencoder_round_trip(tmp_path: Path) -> None:
    source, target = random_model(seed=3), model(seed=1)
    gpt = {n: v.detach().clone() for n, v in target.gpt.named_parameters()}
    path = tmp_path / "deepencoder_001000.safetensors"
    save_deepencoder(source, path, {"step": 1000, "run": "ünï"})
    assert load_deepencoder(target, path) == {"step": 1000, "run": "ünï"}
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
        assert load_deepencoder(target, path) == {}
        assert torch.equal(outputs(target), outputs(source))
        randomise(target, seed=8)


class Canary:
    """Its pickle creates a file if the reader executes code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    canary, path = tmp_path / "canary", tmp_path / "deepencoder_1000.pt"
    value = {"image_newline": torch.ones(3), "x": Canary(canary)}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=rf"{path}: .*refused"):
        load_deepencoder(model(), path)
    assert not canary.exists()


def test_a_pt_file_without_an_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder_1000.pt"
    torch.save([torch.ones(3)], path)
    with pytest.raises(WeightsError, match="not a state dict"):
        load_deepencoder(model(), path)
    torch.save({"gpt.lm_head.weight": torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"gpt\.lm_head\.weight"):
        load_deepencoder(model(), path)
    path.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        load_deepencoder(model(), path)


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
            load_deepencoder(target, path)
    path.write_bytes(good[:-1])
    with pytest.raises(WeightsError):
        load_deepencoder(target, path)
    assert all(torch.equal(v, before[n]) for n, v in target.named_parameters())


def test_other_safetensors_and_newer_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    tensors = {n: v.contiguous() for n, v in to_deepencoder(model().encoder).items()}
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="not a deepencoder file"):
        load_deepencoder(model(), path)
    for header in ("[1]", "1", '"x"', "null"):
        save_file(tensors, path, metadata={"deepencoder": header})
        with pytest.raises(WeightsError, match="not a deepencoder file"):
            load_deepencoder(model(), path)
    save_file(tensors, path, metadata={"deepencoder": json.dumps({"version": 2})})
    with pytest.raises(WeightsError, match=r"version 2\b.* 1\b"):
        load_deepencoder(model(), path)


def test_an_encoder_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deepencoder.safetensors"
    save_deepencoder(model(), path, {})
    other = dataclasses.replace(CONFIG, clip_layers=1)
    with pytest.raises(WeightsError, match=r"unknown: clip\.encoder\.layers\.1"):
        load_deepencoder(build_model(other, image_size=128, image_token=9, seed=0), path)


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
        load_deepencoder(model(), path)


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
    load_deepencoder(target, path)
    for name, value in target.encoder.named_parameters():
        assert value.dtype == torch.bfloat16
        assert value.requires_grad != name.startswith("sam.")
        assert torch.equal(value, source.encoder.get_parameter(name).bfloat16())


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"12345678{}", b"\x02" + bytes(7) + b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deepencoder.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"deepencoder\.pt: "):
        load_deepencoder(model(), path)
    with pytest.raises(WeightsError, match="no such file"):
        load_deepencoder(model(), tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_corrupted_pt_file_is_a_weights_error_or_readable(tmp_path: Path, zipped: bool) -> None:
    """A changed number is not detected, because the file has no digest."""
    path = tmp_path / "deepencoder_1000.pt"
    tensors = {"a": torch.ones(3), "b": torch.arange(5)}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    good = path.read_bytes()
    draw, refused = random.Random(0), 0
    for number in range(300):
        corrupted = bytearray(good)
        offset = draw.randrange(len(good))
        corrupted[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(corrupted[:offset] if number % 3 == 0 else corrupted)
        try:
            read_torch_file(path)
        except WeightsError as exc:
            assert str(exc).startswith(f"{path}: ")
            refused += 1
    assert refused >= 100
