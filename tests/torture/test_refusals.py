"""A full disk, missing permission and a limit on file sizes, at twenty points each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.convertkill import command, go_on, write_rows
from tests.support.kill import points, spread
from tests.support.refusals import REASONS, TITLES, refused_at, small_disk
from tests.support.results import record
from tests.support.shardcommand import environment, made
from tests.support.trainkill import Trainer

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("action", REASONS)
def test_the_converter(action: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write_rows(tmp_path / "rows.jsonl")
        out, env = disk / "out", environment(tmp_path)
        words = command(tmp_path / "rows.jsonl", out)
        found = points(words, out, scratch=tmp_path / "hook", env=env)
        files = made(out)
        shutil.rmtree(out)
        ends = refused_at(
            spread(len(found), 20), action, words, out=out, env=env,
            go_on=lambda: go_on(files, words, out, env),
        )  # fmt: skip
    record("refusals", f"converter, {TITLES[action]}: {dict(ends)} of {len(found)} points")
    assert ends.total() == 20 and ends["clear error"] >= 10, ends


@pytest.mark.parametrize("action", REASONS)
def test_the_trainer(action: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        trainer = Trainer(tmp_path)
        run = disk / "run"
        words = trainer.command(run)
        found = points(words, run, scratch=tmp_path / "hook", env=trainer.env)
        shutil.rmtree(run)

        def resume() -> None:
            trainer.resumed_is_the_same(run)
            shutil.rmtree(run)

        ends = refused_at(
            spread(len(found), 20), action, words, out=run, env=trainer.env, go_on=resume
        )
    record("refusals", f"trainer, {TITLES[action]}: {dict(ends)} of {len(found)} points")
    assert ends.total() == 20 and ends["clear error"] >= 10, ends
