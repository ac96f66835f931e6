"""A full disk, missing permission and a size limit at one point each of a conversion; `make
torture` has twenty points, and training too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.convertkill import command, go_on, write_rows
from tests.support.kill import points
from tests.support.refusals import REASONS, refused_at, small_disk
from tests.support.shardcommand import environment, made


def test_the_converter_reports_each_and_completes_when_repeated(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write_rows(tmp_path / "rows.jsonl")
        out, env = disk / "out", environment(tmp_path)
        words = command(tmp_path / "rows.jsonl", out)
        found = points(words, out, scratch=tmp_path / "hook", env=env)
        files = made(out)
        shutil.rmtree(out)
        middle = next(n for n, what in enumerate(found, 1) if "rows-001.tar" in what)
        for action in REASONS:
            ends = refused_at(
                [middle], action, words, out=out, env=env,
                go_on=lambda: go_on(files, words, out, env),
            )  # fmt: skip
            assert ends == {"clear error": 1}, action


def test_an_unclear_error_is_detected() -> None:
    from subprocess import CompletedProcess

    from tests.support.refusals import check_error

    good = "error: /o/x: no permission; choose another folder\n"
    check_error(CompletedProcess([], 1, "", good), "forbid", 1)
    for status, text in ((2, good), (1, ""), (1, good + good), (1, "Traceback\n" + good),
                         (1, "error: something\n")):  # fmt: skip
        with pytest.raises(AssertionError):
            check_error(CompletedProcess([], status, "", text), "forbid", 1)
