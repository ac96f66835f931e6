"""Servers end with the process that started them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.process import announced_port, running
from tests.support.waiting import until

SLEEPER = "import time; print(1, flush=True); time.sleep(600)"


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_server_ends_with_its_block(tmp_path: Path) -> None:
    with running([sys.executable, "-c", SLEEPER], log=tmp_path / "log") as process:
        assert announced_port(process, tmp_path / "log") == 1 and is_alive(process.pid)
    assert process.returncode == -signal.SIGTERM


def test_a_server_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from tests.support.servers.process import announced_port, running\n"
        f"with running([sys.executable, '-c', {SLEEPER!r}], log=Path(sys.argv[1])) as process:\n"
        "    announced_port(process, Path(sys.argv[1]))\n"
        "    print(process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "log")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert until(lambda: not is_alive(int(done.stdout)))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running([sys.executable, "-c", "raise OSError('no port')"], log=log) as process,
        pytest.raises(RuntimeError, match="no port"),
    ):
        announced_port(process, log)
