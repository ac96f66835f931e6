"""What runs of several ranks are compared with: the same runs in a single process."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from ocrtrain.run import batch_log, run_log
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from tests.support.data import small_config
from tests.support.sizes import two_sizes

STEPS = 20
OF_A_MACHINE = ("dt", "wait", "per_sec", "norm", "time", "padding", "positions")
"""Parts of the names of numbers that depend on time, rounding or the split of a batch."""
KINDS: dict[str, dict[str, Any]] = {
    "batches of one kind": {"mix": "batch"},
    "mixed rows": {"mix": "sample", "text_ratio": Fraction(1, 2)},
    "packed": {"pack": True, "pack_window": 16, "row_images": 4, "freeze": ("clip",)},
    "accumulated": {"mix": "sample", "text_ratio": Fraction(1, 2), "micro_batch": 1},
    "muon": {
        "mix": "sample",
        "text_ratio": Fraction(1, 2),
        "optimizer": "muon",
        "lr": 3e-4,  # it multiplies rounding by more than AdamW does
        "weight_decay": 0.1,
    },
    "frozen GPT": {"mix": "sample", "text_ratio": Fraction(1, 2), "freeze": ("gpt",)},
    "two sizes": {"mix": "sample"},
}


def kind_config(inputs: dict[str, str], run: Path, kind: str, **values: Any) -> Config:
    data = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    return small_config(
        inputs, run, steps=STEPS, batch=4, eval_every=STEPS, save_every=0, val_batch=5, keep=0,
        **(two_sizes(inputs) if kind == "two sizes" else data), **KINDS[kind], **values,
    )  # fmt: skip


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


def newest(run: Path) -> checkpoint.Checkpoint:
    """The newest checkpoint of a run."""
    return checkpoint.Checkpoint.open(checkpoint.complete_checkpoints(run)[-1])


def train_alone(inputs: dict[str, str], folder: Path) -> Path:
    """Train every kind in this process, with one thread; returns the folder of the runs."""
    torch.set_num_threads(1)
    for kind in KINDS:
        assert train(kind_config(inputs, folder / kind, kind)) == 0
    return folder
