from __future__ import annotations

import io
import re

from ocrdata.runtime.progress import Progress, to_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_per_shard_where_nobody_watches() -> None:
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


def test_a_bar_on_a_terminal() -> None:
    shown = Terminal()
    progress = Progress(shown)
    progress.start("set", 100, 40)
    progress.advance(10, 5_000)
    progress.shard_done("set-000.tar")
    progress.close()
    progress.close()
    assert "set: 40 of 100 rows are there, going on\n" in shown.getvalue()
    assert "40/100" in shown.getvalue() and "set-000.tar" not in shown.getvalue()


def test_nothing_where_nothing_is_wanted() -> None:
    progress = Progress()
    progress.start("set", 10, 5)
    progress.advance(5, 1)
    progress.shard_done("x")
    progress.close()
    assert progress.rows == 5
    assert to_terminal().stream is not None
