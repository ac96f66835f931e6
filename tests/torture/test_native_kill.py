"""SIGKILL during the writes, fsyncs and renames of native libraries, which Python cannot see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.convertkill import command, go_on, whole
from tests.support.kill import spread
from tests.support.nativekill import kill_natively, native_points
from tests.support.results import record
from tests.support.shardcommand import environment
from tests.support.trainkill import Trainer

pytestmark = pytest.mark.torture
__all__ = ["whole"]  # the fixture


def test_the_converter(whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    files, _ = whole
    out, env = tmp_path / "out", environment(tmp_path)
    words = command(tmp_path / "rows.jsonl", out)
    found = native_points(words, out, scratch=tmp_path, env=env)
    shutil.rmtree(out)
    chosen = [found[n - 1] for n in spread(len(found), 60)]
    for at in chosen:
        kill_natively(words, at, env)
        go_on(files, words, out, env)
    record(
        "kills",
        f"converter: killed at {len(chosen)} of {len(found)} native calls; byte-identical when "
        "repeated",
    )


def test_the_trainer(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    run = trainer.run("native")
    words = trainer.command(run)
    found = native_points(words, run, scratch=tmp_path, env=trainer.env)
    shutil.rmtree(run)
    chosen = [found[n - 1] for n in spread(len(found), 40)]
    for at in chosen:
        kill_natively(words, at, trainer.env)
        trainer.resumed_is_the_same(run)
        shutil.rmtree(run)
    record(
        "kills",
        f"trainer: killed at {len(chosen)} of {len(found)} native calls; bit-identical when "
        "resumed",
    )
