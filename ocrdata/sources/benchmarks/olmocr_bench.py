"""olmOCR-bench (arXiv 2502.18443, hub: allenai/olmOCR-bench): `bench_data`, a folder of JSON Lines
files of unit tests beside a folder `pdfs`.

A line is one test of one page: `{"pdf": "tables/NAME.pdf", "page": 1, "id": ..., "type": "present",
"text": ..., "max_diffs": 2}`, with other fields by its type. All tests of a page belong to one
sample; every PDF without a `baseline` test gets one for its first page, as in the authors'
programme. Nobody has the pages' texts: the sample's answer is its tests, one JSON object a line,
each with the name of its file under `file`.

PDFs are rendered by pypdfium2 to PNGs, their longest side `side` px.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.sample import Sample
from ocrdata.shards.names import natural
from ocrdata.sources.base import ROW_BYTES, attempt, mean_image_bytes
from ocrdata.sources.benchmarks.questions import Asked, benchmark_sample
from ocrdata.sources.image_files import digest_of_files
from ocrdata.sources.image_folder import list_files
from ocrdata.sources.json_rows import RowFile
from ocrdata.sources.jsonl import parse_record
from ocrdata.storage.files import is_file
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import canonical, digest_of

BENCHMARK = "olmocr-bench"
PDFS = "pdfs"
SIDE = 1288
"""Longest side of a page in px: that of olmOCR's own renderings since 2025."""
PROMPT = "Read the text."

BASELINE = "baseline"
NEEDED = {
    "present": ("text",),
    "absent": ("text",),
    "order": ("before", "after"),
    "table": ("cell",),
    "math": ("math",),
    BASELINE: (),
    "format": ("text", "format"),
    "footnote": ("marker",),
}
"""Types of test, and the fields that each must have."""


class Page(NamedTuple):
    """One page of a PDF, from 1, and its tests."""

    pdf: str
    page: int
    tests: list[dict[str, Any]]


class OlmOcrBenchSource:
    """The pages of one folder, in the order of their names. Raises UsageError if it is not in this
    layout, or pypdfium2 is not installed, SourceError for a line that is no test."""

    content = ("tests_xxh3_128", "pdfs_xxh3_128")

    name = BENCHMARK

    def __init__(self, folder: Path, *, side: int = SIDE, prompt: str = PROMPT) -> None:
        self._pdfs, self._side, self._prompt = folder / PDFS, side, prompt
        if side < 1:
            raise UsageError(f"--side {side} must be at least 1")
        if not self._pdfs.is_dir():
            raise UsageError(f"{self._pdfs}: no such folder; --path is olmOCR-bench's bench_data")
        self._version = renderer_version()
        files = natural(Location.of(file) for file in folder.glob("*.jsonl"))
        if not files:
            raise UsageError(f"{folder}: no .jsonl files of tests beside {PDFS}")
        pages: dict[tuple[str, int], Page] = {}
        for file in files:
            for test in _tests(file.path):
                at = (test["pdf"], test["page"])
                pages.setdefault(at, Page(*at, [])).tests.append(test)
        having = {pdf for (pdf, _), page in pages.items() if _has_baseline(page)}
        for pdf in list_files(self._pdfs):
            if pdf.lower().endswith(".pdf") and pdf not in having:
                test = {"pdf": pdf, "page": 1, "id": f"{pdf}_baseline", "type": BASELINE}
                pages.setdefault((pdf, 1), Page(pdf, 1, [])).tests.append(
                    {**test, "file": BASELINE}
                )
        self._pages = [pages[at] for at in sorted(pages)]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The tests by their content, the PDFs by their names and sizes, and the rendering."""
        return {
            "format": BENCHMARK,
            "tests_xxh3_128": digest_of(canonical([page.tests for page in self._pages])),
            "pdfs_xxh3_128": self._pdfs_digest,
            "pypdfium2": self._version,
            "side": self._side,
            "prompt": self._prompt,
            "licence": "ODC-BY-1.0",
        }

    @cached_property
    def _pdfs_digest(self) -> str:
        names = sorted({page.pdf for page in self._pages})
        return digest_of_files((name, self._pdfs / name) for name in names)

    def count(self) -> int:
        """Number of pages with a test."""
        return len(self._pages)

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards."""
        text = sum(len(json.dumps(page.tests)) for page in self._pages[start:stop])
        return 2 * text + round((mean_image_bytes(self, start, stop) + ROW_BYTES) * (stop - start))

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The PDFs of rows `[start, stop)`."""
        for page in self._pages[start:stop]:
            yield self._pdfs / page.pdf

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`."""
        return attempt(enumerate(self._pages[start:stop], start), self._make)

    def _make(self, page: Page) -> Sample:
        path = self._pdfs / page.pdf
        if Path(page.pdf).is_absolute() or ".." in Path(page.pdf).parts:
            raise RejectedRow(f"{page.pdf[:80]} is outside {PDFS}")
        if not is_file(path):
            raise RejectedRow(f"{PDFS}/{page.pdf[:80]}: no such file")
        image = render_page(path, page.page, self._side)
        answer = "\n".join(json.dumps(test, ensure_ascii=False) for test in page.tests)
        asked = Asked(f"{page.pdf}, page {page.page}", self._prompt, [answer])
        return benchmark_sample(BENCHMARK, [asked], image)


def _tests(path: Path) -> Iterator[dict[str, Any]]:
    """The tests of a file, checked. Raises SourceError."""
    file = RowFile(path)
    for number, row in file.rows(0, file.count):
        try:
            yield _checked(parse_record(row)) | {"file": path.stem}
        except RejectedRow as exc:
            raise SourceError(f"{path}: row {number}: {exc}") from exc


def _checked(test: dict[str, Any]) -> dict[str, Any]:
    """A test with all fields that its type needs; those that are null are left out."""
    test = {name: value for name, value in test.items() if value is not None}
    kind = test.get("type")
    if kind not in NEEDED:
        raise RejectedRow(f"type {kind!r:.40} is none of {', '.join(NEEDED)}")
    for name in ("pdf", "id", *NEEDED[str(kind)]):
        if not isinstance(test.get(name), str) or not test[name].strip():
            raise RejectedRow(f"a test of type {kind} has no {name}")
    for name, least in (("page", 1), ("max_diffs", 0)):
        value = test.get(name, least)
        if type(value) is not int or value < least:
            raise RejectedRow(f"{name} is {value!r:.40}, not a number from {least} on")
    return {"page": 1, **test}


def _has_baseline(page: Page) -> bool:
    return any(test["type"] == BASELINE for test in page.tests)


def renderer_version() -> str:
    """The version of pypdfium2, on which pixels depend. Raises UsageError if it is missing."""
    try:
        import pypdfium2
    except ImportError as exc:
        raise UsageError(
            "pages of PDFs are rendered by pypdfium2, which is not installed: "
            "pip install '.[benchmarks]'"
        ) from exc
    return str(pypdfium2.version.PYPDFIUM_INFO)


def render_page(path: Path, page: int, side: int) -> bytes:
    """A page of a PDF, from 1, as a PNG whose longest side is `side` px. Raises RejectedRow."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as exc:
        raise RejectedRow(f"not a readable PDF: {exc}"[:200]) from exc
    with suppress(pypdfium2.PdfiumError):
        try:
            if not 1 <= page <= len(document):
                raise RejectedRow(f"page {page} of a PDF of {len(document)} pages")
            found = document[page - 1]
            picture = found.render(scale=side / max(found.get_size())).to_pil().convert("RGB")
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            return buffer.getvalue()
        finally:
            document.close()
    raise RejectedRow(f"page {page} cannot be rendered")
