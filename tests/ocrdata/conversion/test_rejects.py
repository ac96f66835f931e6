from __future__ import annotations

from pathlib import Path

from ocrdata.conversion.rejects import (
    examples,
    reasons,
    rejects_path,
    report_path,
    write_lines,
    write_rejects,
)

REJECTS = [(3, "image 0: bad"), (5, "no turns"), (9, "image 12: bad")]


def test_the_file_has_a_line_per_reject_and_is_absent_without_any(tmp_path: Path) -> None:
    path = rejects_path(tmp_path, "set")
    write_rejects(path, REJECTS[:2])
    assert path.name == "set.rejects.jsonl"
    assert path.read_text() == (
        '{"reason":"image 0: bad","row":3}\n{"reason":"no turns","row":5}\n'
    )
    write_rejects(path, [])
    assert not path.exists()
    write_rejects(path, [])


def test_a_report_of_a_source_is_written_line_by_line(tmp_path: Path) -> None:
    path = report_path(tmp_path, "set", "left-out")
    write_lines(path, ({"row": row} for row in range(3)))
    assert path.name == "set.left-out.jsonl"
    assert path.read_text() == '{"row":0}\n{"row":1}\n{"row":2}\n'
    write_lines(path, iter(()))
    assert not path.exists()


def test_reasons_that_differ_only_in_numbers_are_counted_together() -> None:
    assert reasons(REJECTS) == {"image N: bad": 2, "no turns": 1}
    assert examples(REJECTS) == [
        "image 0: bad (2 rows, the first is row 3)",
        "no turns (1 rows, the first is row 5)",
    ]
    assert examples([]) == []
