"""olmOCR-bench: pages with their tests, rendered."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.sample import Sample, check, text_of
from ocrdata.sources.benchmarks.olmocr_bench import OlmOcrBenchSource, render_page

PAGE = {"pdf": "tables/a.pdf", "page": 2}
PRESENT = {**PAGE, "id": "a_0", "type": "present", "text": "Total", "url": None}
ORDER = {**PAGE, "id": "a_1", "type": "order", "before": "x", "after": "y", "max_diffs": 2}
BLANK = {"pdf": "b.pdf", "page": 1, "id": "b_0", "type": "baseline", "max_length": 0}


def pdf(path: Path, *colours: str) -> None:
    """Pages of 200 by 100 points, each of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [Image.new("RGB", (200, 100), colour) for colour in colours]
    pages[0].save(path, "PDF", save_all=True, append_images=pages[1:], resolution=72)


def bench(folder: Path, **files: list[dict[str, Any]]) -> Path:
    pdf(folder / "pdfs" / "tables" / "a.pdf", "red", "blue")
    pdf(folder / "pdfs" / "b.pdf", "white")
    for name, tests in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tests))
    return folder


def unit_tests(sample: object) -> list[dict[str, Any]]:
    assert isinstance(sample, Sample)
    return [json.loads(line) for line in text_of(sample.messages[1]).split("\n")]


def test_a_sample_is_a_page_with_all_its_tests(tmp_path: Path) -> None:
    source = OlmOcrBenchSource(
        bench(tmp_path, table_tests=[PRESENT], multi_column=[ORDER, BLANK]), side=80, prompt="Read."
    )
    found = dict(source.rows(0, source.count()))
    assert source.count() == 3
    b, first, second = (found[at] for at in range(3))
    assert unit_tests(b) == [BLANK | {"file": "multi_column"}], "it has a baseline test of its own"
    baseline = {"page": 1, "pdf": "tables/a.pdf", "id": "tables/a.pdf_baseline",
                "type": "baseline", "file": "baseline"}  # fmt: skip
    assert unit_tests(first) == [baseline]
    without_null = {name: value for name, value in PRESENT.items() if value is not None}
    assert unit_tests(second) == [
        ORDER | {"file": "multi_column"}, without_null | {"file": "table_tests"},
    ]  # fmt: skip
    assert isinstance(second, Sample)
    check(second)
    assert text_of(second.messages[0]) == "Read."
    assert second.meta["benchmark"] == {"name": "olmocr-bench", "facts": [{}]}
    assert second.meta["image"] == "tables/a.pdf, page 2"
    picture = Image.open(io.BytesIO(second.images[0]))
    assert picture.size == (80, 40) and picture.getpixel((40, 20))[2] > 200  # type: ignore[index]
    assert dict(source.rows(2, 3)) == {2: second}, "the same bytes"
    assert [file.name for file in source.files(0, 3)] == ["b.pdf", "a.pdf", "a.pdf"]
    assert source.size(0, 3) > len(second.images[0])


def test_what_the_rows_depend_on(tmp_path: Path) -> None:
    before = OlmOcrBenchSource(bench(tmp_path, t=[PRESENT])).provenance
    assert before["side"] == 1288 and before["pypdfium2"]
    assert OlmOcrBenchSource(bench(tmp_path, t=[PRESENT]), side=64).provenance != before
    changed = OlmOcrBenchSource(bench(tmp_path, t=[ORDER])).provenance
    assert changed["tests_xxh3_128"] != before["tests_xxh3_128"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "colour"}, "colour"),
        ({"text": ""}, "text"),
        ({"pdf": None}, "pdf"),
        ({"page": 0}, "page"),
        ({"max_diffs": -1}, "max_diffs"),
        ({"max_diffs": "2"}, "max_diffs"),
    ],
)
def test_a_line_that_is_no_test(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(SourceError, match=rf"t\.jsonl: row 1: .*{named}"):
        OlmOcrBenchSource(bench(tmp_path, t=[PRESENT, {**PRESENT, **change}]))


def test_pages_that_cannot_be_rendered(tmp_path: Path) -> None:
    broken = {**PRESENT, "pdf": "broken.pdf", "page": 1}
    absent, outside = {**PRESENT, "pdf": "absent.pdf"}, {**PRESENT, "pdf": "../b.pdf"}
    beyond = {**PRESENT, "page": 3}
    bench(tmp_path, t=[broken, absent, outside, beyond])
    (tmp_path / "pdfs" / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    source = OlmOcrBenchSource(tmp_path, side=64)
    reasons = sorted(str(r) for _, r in source.rows(0, 99) if isinstance(r, RejectedRow))
    assert len(reasons) == 4
    for words in (
        "absent.pdf: no such file",
        "outside pdfs",
        "page 3 of a PDF of 2",
        "not a readable PDF",
    ):
        assert any(words in reason for reason in reasons), words
    with pytest.raises(RejectedRow, match="page 0"):
        render_page(tmp_path / "pdfs" / "b.pdf", 0, 64)


def test_folders_that_are_no_bench(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pdfs"):
        OlmOcrBenchSource(tmp_path)
    with pytest.raises(UsageError, match=r"\.jsonl"):
        OlmOcrBenchSource(bench(tmp_path))
    with pytest.raises(UsageError, match="--side"):
        OlmOcrBenchSource(bench(tmp_path, t=[PRESENT]), side=0)
