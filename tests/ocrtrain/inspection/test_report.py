"""The terminal report: its numbers match the batch, and no text of a sample breaks its lines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import TrainError
from ocrdata.images.letterbox import letterbox_geometry
from ocrdata.images.modes import ImageLayout
from ocrtrain.inspection.rebuild import RebuiltBatch
from ocrtrain.inspection.report import (
    COLUMNS,
    NUMBERS,
    Limits,
    cells,
    describe,
    excerpts,
    image_size,
    left_out,
    padding,
    repeated,
    summary,
    truncation,
)
from tests.support.showing import rebuilt_of, talk


def three_rows() -> RebuiltBatch:
    return rebuilt_of(
        [[talk("one", "two", 1), talk("three", "four")], [talk("5", "6", 2)], ["torn"]]
    )


def test_the_summary_counts_the_batch() -> None:
    rebuilt = three_rows()
    lines = summary(rebuilt)
    batch = rebuilt.batch
    empty = sum(batch.input_ids.shape[1] - row.length for row in batch.rows)
    assert padding(batch) == pytest.approx(empty / batch.input_ids.numel())
    assert lines[0] == "run, step 0 of 5: 3 rows of s"
    assert lines[1] == rebuilt.verdict and batch.identity in lines[1]
    assert lines[2].startswith(f"3 rows, 4 samples, 3 images; {batch.tokens} tokens, ")
    assert f"{batch.supervised} of them supervised" in lines[2]
    assert len(lines) == 4 and "skipped" in lines[3] and "1 sample" in lines[3]


def test_truncation_is_reported() -> None:
    rebuilt = rebuilt_of([[talk("q", "long " * 60)]])
    lost = rebuilt.batch.truncated_tokens
    (line,) = summary(rebuilt)[3:]
    assert all(fact in line for fact in ("--seq-len 128", f"{lost} tokens", "1 sample"))
    (segment,) = rebuilt.batch.segments
    both = replace(segment, truncated_tokens=1, truncated_turns=2)
    assert truncation(both) == "1 token with 2 whole turns"


def test_repeated_samples_are_counted() -> None:
    rebuilt = three_rows()
    assert repeated(rebuilt.batch) == 0
    twice = replace(rebuilt, batch=replace(rebuilt.batch, rows=rebuilt.batch.rows * 2))
    assert repeated(twice.batch) == 4
    assert summary(twice)[-1] == "repeated: 4 samples"


def test_the_verdict_matched_not_reached_or_not_verified() -> None:
    rebuilt = three_rows()
    assert "matches the recorded one" in summary(rebuilt)[1]
    later = replace(rebuilt, recorded="", compared=-1)
    assert "not finished step 0" in summary(later)[1] and "step -1" not in summary(later)[1]
    compared = summary(replace(later, compared=7))[1]
    assert "not finished step 0" in compared and "step 7" in compared
    bad = replace(rebuilt, recorded="x", problem=TrainError("it differs"))
    assert "NOT VERIFIED" in summary(bad)[1] and "matches" not in summary(bad)[1]
    assert all(rebuilt.identity in summary(one)[1] for one in (rebuilt, later, bad))


def test_a_table_line_for_each_sample() -> None:
    rebuilt = three_rows()
    lines = describe(rebuilt, Limits()).splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == list(COLUMNS))
    for line, sample in zip(lines[head + 1 :], rebuilt.samples, strict=False):
        part = sample.segment
        assert line.split() == [
            str(sample.row), str(part.start), str(part.length), str(part.images), "0", "3",
            str(part.ref.position), "s", f"x-000.tar:{part.ref.key}", part.ref.digest,
        ]  # fmt: skip
        assert len(cells(sample)) == len(COLUMNS) > NUMBERS
    text = "\n".join(lines)
    assert "    question [image 3]one\n    answer   two\n" in text
    assert "    skipped: torn" in text


def test_limits_are_stated() -> None:
    rebuilt = three_rows()
    text = describe(rebuilt, Limits(samples=2))
    assert text.endswith("not shown: 2 samples (--samples N)")
    assert "k0.1" in text and "k1.0" not in text
    assert left_out(5, 5, "rows", "--rows") == "" and left_out(2, 3, "rows", "--rows") == ""


@given(st.text(), st.text())
def test_no_text_of_a_sample_breaks_its_lines(question: str, answer: str) -> None:
    plain = describe(rebuilt_of([[talk("q", "a")]]), Limits())
    text = describe(rebuilt_of([[talk(question, answer)]]), Limits())
    assert len(text.splitlines()) >= len(text.split("\n")) >= len(plain.split("\n"))
    assert set(text) - set("\n") == {c for c in text if c.isprintable()}


def test_excerpts_are_shortened() -> None:
    (sample,) = (rebuilt := rebuilt_of([[talk("x" * 30, "y" * 80)]])).samples
    assert excerpts(rebuilt, sample, 10) == ("x" * 9 + "…", "y" * 9 + "…")
    assert excerpts(rebuilt, sample, 30)[0] == "x" * 30


def test_the_size_of_an_image() -> None:
    sample = three_rows().samples[0]
    box = letterbox_geometry(12, 8, 64)
    assert image_size(sample, 0, ImageLayout(64)) == (
        f"12 x 8 px, letterboxed to {box.width} x {box.height} in 64 x 64"
    )
