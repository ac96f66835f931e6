"""Several ranks train what a single process trains: the same losses, the same batches."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from ocrtrain.run import batch_log, run_log
from ocrtrain.run.launch import train
from ocrtrain.run.parallel import who_encodes
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from tests.support.data import small_config
from tests.support.ranks import train_on_ranks

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 20
OF_A_MACHINE = ("dt", "wait", "per_sec", "norm", "time", "padding", "positions")
"""Parts of the names of numbers that depend on time, rounding or the split of a batch."""
KINDS: dict[str, dict[str, Any]] = {
    "batches of one kind": {"mix": "batch"},
    "mixed rows": {"mix": "sample", "text_ratio": Fraction(1, 2)},
    "packed": {"pack": True, "pack_window": 16, "row_images": 4, "freeze": ("clip",)},
    "accumulated": {"mix": "sample", "text_ratio": Fraction(1, 2), "micro_batch": 1},
    "frozen GPT": {"mix": "sample", "text_ratio": Fraction(1, 2), "freeze": ("gpt",)},
}


def config(inputs: dict[str, str], run: Path, kind: str, **values: Any) -> Config:
    return small_config(
        inputs, run, text=(inputs["text"] + "[:30]",), val_text=(inputs["text"] + "[30:]",),
        steps=STEPS, batch=4, eval_every=STEPS, save_every=0, val_batch=5, keep=0,
        **KINDS[kind], **values,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a single process, by kind."""
    folder = tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    for kind in KINDS:
        assert train(config(inputs, folder / kind, kind)) == 0
    return folder


def check_equal(run: Path, alone: Path) -> None:
    """Identities are equal, numbers to 1e-5; what counts tokens is equal."""
    assert (run / batch_log.FILE).read_bytes() == (alone / batch_log.FILE).read_bytes()
    lines, wanted = (
        [line for line in run_log.read(folder) if "train/loss" in line or "val/loss" in line]
        for folder in (run, alone)
    )
    assert [line["step"] for line in lines] == [line["step"] for line in wanted]
    for line, other in zip(lines, wanted, strict=True):
        for name, value in other.items():
            if name.endswith(("loss", "gain", "gain_head", "similarity", "feature_std")):
                assert line[name] == pytest.approx(value, abs=1e-5), (line["step"], name)
            elif not any(word in name for word in OF_A_MACHINE):
                assert line[name] == value, (line["step"], name)


def check_tensors(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> None:
    """Weights and moments of two checkpoints are equal but for rounding."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        tensors, wanted = load(one.read(name)), load(other.read(name))
        assert tensors.keys() == wanted.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(tensor, wanted[key], rtol=1e-3, atol=1e-5)


def test_two_ranks_train_what_one_process_trains(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    jobs = [(config(inputs, tmp_path / kind, kind), False) for kind in KINDS]
    first, second = train_on_ranks(2, jobs, tmp_path)
    for kind in KINDS:
        check_equal(tmp_path / kind, alone / kind)
    assert "2 ranks, 2 rows a step each" in first[1]
    assert second[1] == "" and "WARNING" not in second[2]  # rank 0 alone prints


def test_a_sharded_model_trains_what_one_process_trains(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    kinds = ("mixed rows", "packed")
    jobs = [
        (config(inputs, tmp_path / k, k, parallel="fsdp", checkpointing=True), False) for k in kinds
    ]
    train_on_ranks(2, jobs, tmp_path)
    for kind in kinds:
        check_equal(tmp_path / kind, alone / kind)
        sharded, whole = (
            checkpoint.Checkpoint.open(checkpoint.complete_checkpoints(run / kind)[-1])
            for run in (tmp_path, alone)
        )
        check_tensors(sharded, whole)
        assert {f.name for f in (tmp_path / kind).iterdir()} == {
            f.name for f in (alone / kind).iterdir()
        }


def test_a_checkpoint_goes_on_with_any_number_of_ranks(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    kind, run = "mixed rows", tmp_path / "run"
    train_on_ranks(4, [(config(inputs, run, kind, stop_at=5), False)], tmp_path)
    assert train(config(inputs, run, kind, stop_at=9), resume=True) == 0
    train_on_ranks(
        2,
        [
            (config(inputs, run, kind, stop_at=14, parallel="fsdp"), True),
            (config(inputs, run, kind), True),
        ],
        tmp_path,
    )
    check_equal(run, alone / kind)
    check_tensors(*(
        checkpoint.Checkpoint.open(checkpoint.complete_checkpoints(folder)[-1])
        for folder in (run, alone / kind)
    ))  # fmt: skip


def test_all_encode_where_one_has_images_and_at_the_end_if_any_had() -> None:
    assert who_encodes([[0, 0], [0, 0]]) == [False, False]
    assert who_encodes([[0, 0, 0], [0, 2, 0]]) == [False, True, True]
    assert who_encodes([[0, 0, 1]]) == [False, False, True]
