"""The text of a batch: its numbers are the batch's, its lines stay lines whatever samples say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import TrainError
from ocrdata.images.letterbox import letterbox_geometry
from ocrtrain.inspection.rebuild import RebuiltBatch
from ocrtrain.inspection.report import (
    COLUMNS,
    NUMBERS,
    Limits,
    cells,
    cut,
    describe,
    excerpts,
    image_size,
    left_out,
    padding,
    repeated,
    summary,
)
from tests.support.showing import shown_of, talk


def three_rows() -> RebuiltBatch:
    return shown_of([[talk("one", "two", 1), talk("three", "four")], [talk("5", "6", 2)], ["torn"]])


def test_the_summary_counts_the_batch() -> None:
    shown = three_rows()
    lines = summary(shown)
    batch = shown.batch
    empty = sum(batch.input_ids.shape[1] - row.length for row in batch.rows)
    assert padding(batch) == pytest.approx(empty / batch.input_ids.numel())
    assert lines[0] == "run, step 0 of 5: 3 rows of s"
    assert lines[1] == f"identity {batch.identity} equals the one recorded"
    assert lines[2].startswith(f"3 rows, 4 samples, 3 images; {batch.tokens} tokens, ")
    assert f"{batch.supervised} of them supervised" in lines[2]
    assert lines[3:] == ["skipped, with a hole in its place: 1 sample"]


def test_what_was_cut_is_said() -> None:
    shown = shown_of([[talk("q", "long " * 60)]])
    lost = shown.batch.truncated_tokens
    assert summary(shown)[3:] == [f"cut to --seq-len 128: {lost} tokens, of 1 sample"]
    (segment,) = shown.batch.segments
    assert (
        cut(replace(segment, truncated_tokens=1, truncated_turns=2)) == "1 token with 2 whole turns"
    )


def test_samples_that_are_there_twice_are_counted() -> None:
    shown = three_rows()
    assert repeated(shown.batch) == 0
    twice = replace(shown, batch=replace(shown.batch, rows=shown.batch.rows * 2))
    assert repeated(twice.batch) == 4
    assert summary(twice)[-1] == "there more than once: 4 samples too many"


def test_the_verdict_has_three_ways() -> None:
    shown = three_rows()
    assert "equals the one recorded" in summary(shown)[1]
    later = replace(shown, recorded="", compared=-1)
    assert summary(later)[1].endswith("training has not finished step 0 yet")
    assert summary(replace(later, compared=7))[1].endswith("; step 7, the last it has, is the same")
    bad = replace(shown, recorded="x", problem=TrainError("it differs"))
    assert "IS NOT KNOWN TO BE THE ONE TRAINED ON" in summary(bad)[1]


def test_a_table_line_for_each_sample() -> None:
    shown = three_rows()
    lines = describe(shown, Limits()).splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == list(COLUMNS))
    for line, sample in zip(lines[head + 1 :], shown.samples, strict=False):
        part = sample.segment
        assert line.split() == [
            str(sample.row), str(part.start), str(part.length), str(part.images), "0", "3",
            str(part.ref.position), "s", f"x-000.tar:{part.ref.key}", part.ref.digest,
        ]  # fmt: skip
        assert len(cells(sample)) == len(COLUMNS) > NUMBERS
    text = "\n".join(lines)
    assert "    asked    [image 3]one\n    answered two\n" in text
    assert "    skipped: torn" in text


def test_limits_are_said() -> None:
    shown = three_rows()
    text = describe(shown, Limits(samples=2))
    assert text.endswith("not shown: 2 samples (--samples N)")
    assert "k0.1" in text and "k1.0" not in text
    assert left_out(5, 5, "rows", "--rows") == "" and left_out(2, 3, "rows", "--rows") == ""


@given(st.text(), st.text())
def test_a_sample_stays_on_its_lines(question: str, answer: str) -> None:
    plain = describe(shown_of([[talk("q", "a")]]), Limits())
    text = describe(shown_of([[talk(question, answer)]]), Limits())
    assert len(text.splitlines()) >= len(text.split("\n")) >= len(plain.split("\n"))
    assert set(text) - set("\n") == {c for c in text if c.isprintable()}


def test_excerpts_are_short() -> None:
    (sample,) = (shown := shown_of([[talk("x" * 30, "y" * 80)]])).samples
    assert excerpts(shown, sample, 10) == ("x" * 9 + "…", "y" * 9 + "…")
    assert excerpts(shown, sample, 30)[0] == "x" * 30


def test_the_size_of_an_image() -> None:
    sample = three_rows().samples[0]
    box = letterbox_geometry(12, 8, 64)
    assert image_size(sample, 0, 64) == (
        f"12 x 8 px, letterboxed to {box.width} x {box.height} in 64 x 64"
    )
