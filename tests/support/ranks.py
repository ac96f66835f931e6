"""Several ranks on this machine: processes as torchrun starts them, without torchrun.

`python -m tests.support.ranks JOBS` is one rank: it trains the runs that the JSON file JOBS lists,
one after the other. Started once for many runs, because importing torch takes longer than they do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ocrtrain.settings.config import Config
from ocrtrain.settings.saved_config import to_json

ROOT = Path(__file__).parents[2]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would set, and one thread for each rank."""
    return {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def start_ranks(
    size: int, jobs: Sequence[tuple[Config, bool]], folder: Path, *, restarts: int = 0
) -> list[subprocess.Popen[str]]:
    """Start `size` ranks that train the configs, each resumed if its flag says so."""
    path = Path(tempfile.mkstemp(dir=folder, suffix=".json")[1])
    # A process group of its own for each run.
    runs = [[to_json(config), resume, free_port()] for config, resume in jobs]
    path.write_text(json.dumps(runs))
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.ranks", str(path)],
            env=environment(rank, size, 1) | {"TORCHELASTIC_RESTART_COUNT": str(restarts)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(ranks: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit status, standard output, standard error) of each rank, when all have ended."""
    found = []
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=120)
            found.append((rank.returncode, out, err))
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return found


def train_on_ranks(
    size: int, jobs: Sequence[tuple[Config, bool]], folder: Path
) -> list[tuple[int, str, str]]:
    """`start_ranks` and `finish`, checking that all succeed."""
    found = finish(start_ranks(size, jobs, folder))
    for rank, (status, out, err) in enumerate(found):
        assert status == 0, f"rank {rank}: {out}\n{err}"
    return found


def _main(path: str) -> int:
    import torch

    from ocrtrain.run import launch
    from ocrtrain.settings.saved_config import from_json

    torch.set_num_threads(1)
    for value, resume, port in json.loads(Path(path).read_text()):
        os.environ["MASTER_PORT"] = str(port)
        launch.train(from_json(value), resume=resume)
    return 0


if __name__ == "__main__":
    from ocrdata.runtime.cli import run

    run(lambda arguments: _main(*arguments))
