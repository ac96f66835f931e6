"""Every bomb is refused with our error, in little memory, and writes no file it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import bombs_data
from tests.support.bombs import Bomb, Ending, can_measure, explode, faults, measured

pytestmark = pytest.mark.skipif(not can_measure(), reason="the peak memory cannot be reset")


def test_every_bomb_is_refused(tmp_path: Path) -> None:
    endings = explode("tests.support.bombs_data", bombs_data.BOMBS, tmp_path)
    assert not (found := faults(bombs_data.BOMBS, endings)), "\n".join(found)


def test_the_harness_measures_memory_and_reports_wrong_endings() -> None:
    assert measured(lambda: None) < 4 << 20
    bomb = Bomb("x", lambda folder, hostile: None, lambda folder: None, "no such")
    good, control = Ending("x", "ShardError", "no such", 0), Ending("control", "", "", 160 << 20)
    assert faults([bomb], [good, control]) == []
    for bad, message in (
        (Ending("x", "", "", 0), "x: accepted"),
        (Ending("x", "crash", "KeyError", 0), "x: crash KeyError"),
        (Ending("x", "ShardError", "else", 0), "another reason: else"),
        (Ending("x", "ShardError", "no such", 65 << 20), "x: took 65 MiB"),
    ):
        (told,) = faults([bomb], [bad, control])
        assert message in told
    (told,) = faults([bomb], [good, good])
    assert "160 MiB were measured as 0" in told
