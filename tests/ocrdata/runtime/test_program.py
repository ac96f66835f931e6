"""Ctrl-C while a program is still importing what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.shardcommand import ROOT

HOOK = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
"""A `sitecustomize` that interrupts the process when it imports a module."""


@pytest.mark.parametrize(
    ("module", "status", "told"),
    [
        ("ocrdata.runtime.cli", -signal.SIGINT, ""),
        ("ocrdata.errors", -signal.SIGINT, ""),
        ("ocrtrain.settings", 130, "stopped by Ctrl-C\n"),
    ],
)
def test_no_traceback(tmp_path: Path, module: str, status: int, told: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "INTERRUPT_AT": module}
    words = [sys.executable, "-m", "ocrtrain.stage1", "--help"]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", told)
