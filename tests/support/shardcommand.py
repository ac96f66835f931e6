"""Runs `tools/make_shards.py` as users do, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "make_shards.py"


def environment(home: Path, endpoint: str = "http://127.0.0.1:9", **more: str) -> dict[str, str]:
    """Environment variables with an empty cache, the given hub only, and our code importable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING_FACE"))
    }
    return {
        **kept,
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def make_shards(
    *words: object, env: dict[str, str], timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return run_tool("make_shards", *words, env=env, timeout=timeout)


def run_tool(
    tool: str, *words: object, env: dict[str, str], timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `tools/TOOL.py`."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tools" / f"{tool}.py"), *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def made(out: Path) -> dict[str, bytes]:
    """Path in the output folder -> content of every file, hidden ones too."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error: the only line on standard error that is neither progress nor says what is waited
    for."""
    lines = [
        line
        for line in done.stderr.splitlines()
        if not line.endswith("B/s)") and "; trying again in " not in line
    ]
    assert len(lines) == 1, done.stderr
    assert "error: " in lines[0]
    return lines[0]
