"""Files of tensors: every container is read by name, whatever is none is refused, no code runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ocrdata.errors import WeightsError
from ocrtrain.model.weight_file import open_tensors, read_torch_file
from tests.support.pretrained import model, take


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
        take(model(), path)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"12345678{}", b"\x02" + bytes(7) + b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deepencoder.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"deepencoder\.pt: "):
        take(model(), path)


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


VALUES = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


@pytest.mark.parametrize(
    "wrapped",
    [
        VALUES,
        {"model": VALUES, "step": 7},
        {"state_dict": VALUES},
        {"state_dict": {"model": VALUES}, "optimizer": {"lr": 0.1}},
        {"model_state_dict": {n: torch.nn.Parameter(v) for n, v in VALUES.items()}},
    ],
)
def test_the_weights_in_what_a_trainer_saved_are_found(tmp_path: Path, wrapped: object) -> None:
    path = tmp_path / "x.pt"
    torch.save(wrapped, path)
    found = open_tensors([path])
    assert found.shapes == {"a.weight": (2, 3), "b": (4,)}
    assert all(torch.equal(found.read(name), value) for name, value in VALUES.items())
    beside = {key for key in wrapped if key in ("step", "optimizer")}  # type: ignore[attr-defined]
    assert set(found.beside) == beside


def test_what_a_trainer_says_of_the_sizes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": VALUES, "config": {"n_head": 4}, "epoch": 3}, path)
    found = open_tensors([path])
    assert (found.record, found.beside) == ({"n_head": 4}, ("epoch",))


def test_a_file_of_two_models_is_refused_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": VALUES, "module": VALUES}, path)
    with pytest.raises(WeightsError, match=r"x\.pt: .*model, module"):
        open_tensors([path])


def test_parts_of_safetensors_are_one_set_of_tensors(tmp_path: Path) -> None:
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for path, name in zip(paths, VALUES, strict=True):
        save_file({name: VALUES[name]}, path)
    found = open_tensors(paths)
    assert found.shapes == {"a.weight": (2, 3), "b": (4,)}
    assert all(torch.equal(found.read(name), value) for name, value in VALUES.items())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"hello, weights", "text file .*hello, weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"GGUF\x03\x00", "GGUF"),
        (b"", "empty"),
        (b"\xff\xfe\x00\x01", "neither"),
    ],
)
def test_what_is_no_weights_is_said(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^{path}: .*{found}"):
        open_tensors([path])
