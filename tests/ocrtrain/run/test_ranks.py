"""Ranks that fail, are stopped or are killed: the others end too, and say why."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import UsageError
from ocrtrain.run import run_log
from ocrtrain.run.ranks import device_of_rank, open_world
from ocrtrain.settings.config import Config
from ocrtrain.settings.world import World
from ocrtrain.state import checkpoint
from tests.support.data import make_inputs, small_config
from tests.support.ranks import finish, start_ranks
from tests.support.showing import break_images
from tests.support.waiting import until


def config(inputs: dict[str, str], run: Path, **values: Any) -> Config:
    return small_config(inputs, run, steps=4000, eval_every=0, save_every=0, **values)


def steps(run: Path) -> int:
    if not (run / run_log.FILE).exists():
        return 0
    return sum("train/loss" in line for line in run_log.read(run))


def test_a_killed_rank_ends_the_others_with_the_cause(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ranks = start_ranks(2, [(config(inputs, run), False)], tmp_path)
    assert until(lambda: steps(run) >= 3)
    ranks[1].kill()
    began = time.monotonic()
    (first, _, err), (second, _, _) = finish(ranks)
    assert time.monotonic() - began < 30  # the bound that the issue sets, not a benchmark
    assert (first, second) == (1, -signal.SIGKILL)
    assert "rank 1 of 2 is lost" in err and "--resume" in err and "Traceback" not in err


def test_sigterm_to_one_rank_saves_and_stops_all(inputs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks = start_ranks(2, [(config(inputs, run), False)], tmp_path)
    assert until(lambda: steps(run) >= 3)
    ranks[1].terminate()
    found = finish(ranks)
    assert [status for status, _, _ in found] == [0, 0], found
    (saved,) = checkpoint.complete_checkpoints(run)
    assert saved.name == checkpoint.step_folder(run, steps(run)).name
    assert "stopped at step" in found[0][1] and "--resume" in found[0][1]


def test_what_one_rank_cannot_read_stops_all_with_one_line(tmp_path: Path) -> None:
    """One of the two gets the damaged sample; rank 0 says so, naming it."""
    own = make_inputs(tmp_path)
    break_images(own["shards"], [17])
    found = finish(start_ranks(2, [(config(own, tmp_path / "run"), False)], tmp_path))
    assert [status for status, _, _ in found] == [1, 1], found
    lines = [line for _, _, err in found for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1 and "squares-000.tar" in lines[0] and "000000017" in lines[0], found


def test_a_batch_that_the_ranks_cannot_share_is_refused_before_they_meet(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    one = config(inputs, tmp_path / "run", batch=3)
    ranks = start_ranks(2, [(one, False)], tmp_path)
    ranks[0].wait(timeout=120)
    ranks[1].terminate()  # as torchrun does when one has failed
    found = finish(ranks)
    assert [status for status, _, _ in found] == [2, -15]
    assert "--batch 3" in found[0][2] and "2 ranks" in found[0][2]
    assert found[1][2] == ""
    assert not (tmp_path / "run").exists()


def test_a_single_process_needs_no_process_group() -> None:
    with open_world(World(), torch.device("cpu")) as world:
        assert world == World(device="cpu")
        assert not torch.distributed.is_initialized()


def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = [World(r, 4, local_rank=r % 2, local_size=2, is_distributed=True) for r in range(4)]
    assert [device_of_rank("auto", rank).index for rank in ranks] == [0, 1, 0, 1]
    assert device_of_rank("cuda:1", World()).index == 1
    with pytest.raises(UsageError, match=r"--device cuda:1 .*\b2 processes"):
        device_of_rank("cuda:1", ranks[0])
    for rank in range(3):  # all of them say it: the first is listened to
        with pytest.raises(UsageError, match=r"\b3 processes .*\b2 CUDA devices"):
            device_of_rank(
                "cuda", World(rank, 3, local_rank=rank, local_size=3, is_distributed=True)
            )
