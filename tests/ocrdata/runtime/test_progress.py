from __future__ import annotations

import io
import re

import pytest

from ocrdata.runtime.progress import Progress, progress_bar, to_terminal
from tests.support.terminal import Terminal


def test_a_bar_is_shown_on_a_terminal_and_removed() -> None:
    shown = Terminal()
    with progress_bar(100, " steps", description="planning", done=40, stream=shown) as bar:
        bar.update(20)
        bar.clear()
        bar.refresh()
    text = shown.getvalue()
    assert "planning:" in text and "40/100" in text and "60/100" in text
    assert text.endswith("\r"), "the bar is wiped, not left behind"


def test_bytes_are_scaled_and_a_bar_can_come_late() -> None:
    shown, late = Terminal(), Terminal()
    with progress_bar(4_000_000, "B", stream=shown):
        pass
    assert "/4.00M" in shown.getvalue()
    with progress_bar(10, " steps", delay=60, stream=late) as bar:
        bar.update(10)
    assert late.getvalue().strip() == ""


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(10, " rows") as bar:
        bar.update(5)
        bar.clear()
    assert capsys.readouterr() == ("", "")


def test_a_line_per_shard_without_a_terminal() -> None:
    shown = io.StringIO()
    progress = Progress(shown)
    progress.start("set", 100, 0)
    progress.advance(10, 5_000)
    progress.shard_done("set-000.tar: 10 samples")
    progress.close()
    assert re.fullmatch(
        r"set-000\.tar: 10 samples \([\d,]+ rows/s, [\d.]+ [KMGT]?B/s\)\n", shown.getvalue()
    )
    assert (progress.rows, progress.bytes, progress.shards) == (10, 5_000, 1)


def test_a_conversion_shows_a_bar_on_a_terminal() -> None:
    shown = Terminal()
    progress = Progress(shown)
    progress.start("set", 100, 40)
    progress.advance(10, 5_000)
    progress.shard_done("set-000.tar")
    progress.close()
    progress.close()
    assert re.search(r"^set: .*\b40 of 100 rows.*\n", shown.getvalue())
    assert "40/100" in shown.getvalue() and "set-000.tar" not in shown.getvalue()


def test_without_a_stream_nothing_is_shown() -> None:
    progress = Progress()
    progress.start("set", 10, 5)
    progress.advance(5, 1)
    progress.shard_done("x")
    progress.close()
    assert progress.rows == 5
    assert to_terminal().stream is not None
