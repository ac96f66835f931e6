"""Every bomb is refused with our error, in little memory, and writes nothing where it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import bombs_data
from tests.support.bombs import Bomb, Ending, can_measure, explode, faults, measured

pytestmark = pytest.mark.skipif(not can_measure(), reason="the peak of memory cannot be set back")


def test_the_data_plane(tmp_path: Path) -> None:
    endings = explode("tests.support.bombs_data", bombs_data.BOMBS, tmp_path)
    assert not faults(bombs_data.BOMBS, endings)


def test_what_is_measured_is_seen_and_what_is_wrong_is_told() -> None:
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
