"""2 and 4 ranks, with DDP and FSDP2, on every kind of batch; torchrun as one and as two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocrtrain.run.launch import train
from ocrtrain.state import checkpoint
from tests.support.data import flags
from tests.support.rankruns import (
    KINDS,
    check_equal,
    check_tensors,
    kind_config,
    newest,
    train_alone,
)
from tests.support.ranks import ROOT, free_port, train_on_ranks
from tests.support.results import record
from tests.support.waiting import until

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def alone(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a single process, by kind."""
    return train_alone(inputs, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_ranks_train_what_one_process_trains(
    size: int, parallel: str, checkpointing: bool, inputs: dict[str, str], alone: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    options = {"parallel": parallel, "checkpointing": checkpointing}
    jobs = [(kind_config(inputs, tmp_path / k, k, **options), False) for k in KINDS]
    train_on_ranks(size, jobs, tmp_path)
    for kind in KINDS:
        check_equal(tmp_path / kind, alone / kind)
        check_tensors(newest(tmp_path / kind), newest(alone / kind))
    record(
        "ranks",
        f"{size} ranks, {parallel}, checkpointing {checkpointing}: {len(KINDS)} kinds of 20 steps: "
        "identities equal, losses and weights to 1e-5",
    )


def test_any_number_of_ranks_goes_on(inputs: dict[str, str], alone: Path, tmp_path: Path) -> None:
    kind, run = "mixed rows", tmp_path / "run"
    chain = [(4, "ddp"), (1, "ddp"), (2, "fsdp"), (4, "fsdp"), (2, "ddp")]
    for number, (size, parallel) in enumerate(chain):
        stop = 0 if number == len(chain) - 1 else 4 * (number + 1)
        one = kind_config(inputs, run, kind, stop_at=stop, parallel=parallel)
        if size == 1:
            assert train(one, resume=True) == 0
        else:
            train_on_ranks(size, [(one, number > 0)], tmp_path)
    check_equal(run, alone / kind)
    check_tensors(newest(run), newest(alone / kind))
    record("ranks", f"resumed with {chain}: equal to an unbroken run")


def torchrun(arguments: list[str], words: list[str], folder: Path) -> subprocess.Popen[str]:
    """torchrun as people type it, with gloo on the loopback interface."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments,
         "-m", "ocrtrain.stage1", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        start_new_session=True,
    )  # fmt: skip


def test_two_agents_are_two_nodes(inputs: dict[str, str], alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = flags(kind_config(inputs, run, "mixed rows"))
    port = free_port()
    agents = [
        torchrun(
            ["--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1",
             "--master_addr", "127.0.0.1", "--master_port", str(port)],
            words, tmp_path,
        )
        for node in range(2)
    ]  # fmt: skip
    printed = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], printed
    check_equal(run, alone / "mixed rows")
    record("ranks", "torchrun with 2 agents of 1 process: equal to a single process")


def test_max_restarts_goes_on_from_the_newest_checkpoint(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    """A rank is killed in the middle; torchrun starts all of them again."""
    from dataclasses import replace

    run = tmp_path / "run"
    words = flags(replace(kind_config(inputs, run, "mixed rows"), save_every=4))
    agent = torchrun(
        ["--standalone", "--nproc_per_node", "2", "--max-restarts", "1"], words, tmp_path
    )
    assert until(lambda: len(checkpoint.complete_checkpoints(run)) >= 2)
    os.kill(_rank_of(agent.pid), signal.SIGKILL)
    printed = agent.communicate(timeout=300)[0]
    assert agent.returncode == 0, printed
    assert "resuming at step" in printed
    check_equal(run, alone / "mixed rows")
    record("ranks", "torchrun --max-restarts 1, a rank killed: equal to an unbroken run")


def _rank_of(agent: int) -> int:
    """The process of rank 1, a child of the agent."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == agent and b"RANK=1" in variables:
            return int(entry.name)
    raise AssertionError("rank 1 is not running")
