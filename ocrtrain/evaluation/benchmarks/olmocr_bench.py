"""olmOCR-bench: unit tests of pages, each passed or not."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rapidfuzz import fuzz

from ocrdata.errors import RejectedRow
from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value
from ocrtrain.evaluation.benchmarks.cells import LEFT, UP, Place, Table, tables_in

MEASURE = "tests passed"
Test = Mapping[str, Any]

MATH_LEFT_OUT = "math tests: formulas are not rendered here"
_LEFT_OUT = {
    "math": MATH_LEFT_OUT,
    "format": "format tests: not among the published files, not written here",
    "footnote": "footnote tests: not among the published files, not written here",
}

_MARKUP = (
    (re.compile(r"<br/?>"), " "),
    (re.compile(r"\*\*(.*?)\*\*"), r"\1"),
    (re.compile(r"__(.*?)__"), r"\1"),
    (re.compile(r"</?[bi]>"), ""),
    (re.compile(r"(\*\*|__)(.*?)\1"), r"\2"),
    (re.compile(r"(\*|_)(.*?)\1"), r"\2"),
    (re.compile(r"\s+"), " "),
)
_LETTERS = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a", "'"),
        **dict.fromkeys("\u201c\u201d\u201e", '"'),
        **dict.fromkeys("\u2013\u2014\u2011\u2012\u2212", "-"),
        "\uff3f": "_",
        "\u00b5": "\u03bc",
    }
)
LEAST_SIMILARITY = 0.5
"""Of cells, however many differences a test allows."""
MOST_REPEATS = 30
LONGEST_REPEATED = 5
"""Characters of what a page that ends in a loop may repeat."""
_FOREIGN = re.compile(
    "[\u4e00-\u9fff\u3040-\u309f\u30a0-\u30ff\U0001f600-\U0001f64f\U0001f300-\U0001f5ff"
    "\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]"
)
_IMAGE = re.compile(r"!\[.*?\]\(.*?\)")


def measure(answer: str, gold: Gold) -> Measured:
    """Every test of the page that can be made here."""
    values, left_out = [], Counter[str]()
    for line in gold.answers[0].split("\n"):
        test = _test(line)
        kind = test["type"]
        if kind in _LEFT_OUT:
            left_out[_LEFT_OUT[kind]] += 1
            continue
        groups = {"file": (test["file"],), "type": (kind,)}
        values.append(Value(MEASURE, float(_TESTS[kind](test, answer)), groups))
    return Measured(tuple(values), left_out=left_out)


def _test(line: str) -> Test:
    """A test as the source checked and wrote it. Raises RejectedRow for any other text."""
    try:
        test = json.loads(line)
    except ValueError as exc:
        raise RejectedRow("the sample's answer is not a list of tests") from exc
    if not isinstance(test, dict) or test.get("type") not in {*_TESTS, *_LEFT_OUT}:
        raise RejectedRow("the sample's answer is not a list of tests")
    return test


def normalised(text: str) -> str:
    """A text as tests compare it: see `BENCHMARK.normalisation`."""
    for pattern, by in _MARKUP:
        text = pattern.sub(by, text)
    return unicodedata.normalize("NFC", text).translate(_LETTERS)


def _threshold(test: Test, text: str) -> float:
    """The similarity that a text needs, with as many differences as its test allows."""
    return 1 - int(test.get("max_diffs", 0)) / (len(text) or 1)


def _is_present(test: Test, answer: str) -> bool:
    wanted, content = normalised(test["text"]), normalised(answer)
    if not test.get("case_sensitive", True):
        wanted, content = wanted.lower(), content.lower()
    first, last = test.get("first_n"), test.get("last_n")
    if first and last:
        content = content[:first] + content[-last:]
    elif first:
        content = content[:first]
    elif last:
        content = content[-last:]
    return fuzz.partial_ratio(wanted, content) / 100 >= _threshold(test, wanted)


def _is_absent(test: Test, answer: str) -> bool:
    return not _is_present(test, answer)


def _is_in_order(test: Test, answer: str) -> bool:
    """Whether some place of the first text is before some place of the second."""
    from fuzzysearch import find_near_matches

    content, allowed = normalised(answer), test.get("max_diffs", 0)
    before, after = (
        [
            one.start
            for one in find_near_matches(normalised(test[name]), content, max_l_dist=allowed)
        ]
        for name in ("before", "after")
    )
    return bool(before and after) and min(before) < max(after)


_RELATIONS: dict[str, Callable[[Table, Place], set[Place]]] = {
    **{
        side: lambda table, place, side=side: table.beside[side][place]  # type: ignore[misc]
        for side in ("up", "down", "left", "right")
    },
    "top_heading": lambda table, place: table.headings(place, UP),
    "left_heading": lambda table, place: table.headings(place, LEFT),
}


def _has_cell(test: Test, answer: str) -> bool:
    """Whether a table has a cell like the test's, and beside it what the test says."""
    wanted = normalised(test["cell"])
    relations = [(name, normalised(test[name])) for name in _RELATIONS if test.get(name)]
    for table in tables_in(answer, markdown=not test.get("ignore_markdown_tables", False)):
        for place, cell in table.cells.items():
            if _is_like(test, wanted, cell.text) and all(
                any(
                    _is_like(test, text, table.cells[other].text)
                    for other in _RELATIONS[name](table, place)
                )
                for name, text in relations
            ):
                return True
    return False


def _is_like(test: Test, wanted: str, text: str) -> bool:
    similarity = fuzz.ratio(wanted, normalised(text)) / 100
    return similarity >= max(LEAST_SIMILARITY, _threshold(test, wanted))


def _is_sound(test: Test, answer: str) -> bool:
    """Not empty, not ending in a loop, and without letters that no page of the benchmark has; or,
    for a blank page, empty enough."""
    content = answer
    if "max_length" in test:
        if test.get("max_length_skips_image_alt_tags", False):
            content = _IMAGE.sub("", content)
        return sum(map(str.isalnum, content)) <= int(test["max_length"])
    if not any(map(str.isalnum, content)):
        return False
    if max(_repeats(content)) > test.get("max_repeats", MOST_REPEATS):
        return False
    return not (test.get("check_disallowed_characters", True) and _FOREIGN.search(content))


def _repeats(text: str) -> list[int]:
    """How often the last 1, 2, ... characters follow themselves at the end."""
    text = re.sub(r"\s+", " ", text)
    found = []
    for size in range(1, LONGEST_REPEATED + 1):
        last, count = text[-size:], 0
        while len(text) >= size * (count + 1) and text.endswith(last, 0, len(text) - size * count):
            count += 1
        found.append(count)
    return found


_TESTS: dict[str, Callable[[Test, str], bool]] = {
    "present": _is_present,
    "absent": _is_absent,
    "order": _is_in_order,
    "table": _has_cell,
    "baseline": _is_sound,
}

BENCHMARK = Benchmark(
    name="olmocr-bench",
    title="olmOCR-bench",
    version="bench_data of 2025, tests as of olmocr at f7cfe4c (2026-03)",
    definition="arXiv 2502.18443; the authors' olmocr/bench/tests.py. all: the mean over the files "
    "of tests. Without the math tests this is not the published overall score; compare by file. "
    "Pages are rendered by pypdfium2, not by poppler as in the authors' runners",
    normalisation="Markdown's bold and italics, <b>, <i> and <br> are removed, white space of any "
    "kind is one blank, letters are in composed form (NFC), quotes and dashes are ASCII; case "
    "counts unless a test says otherwise",
    checked="measure: the authors' tests.py and table_parsing.py, run on made pages beside ours; "
    "layout: their repository's sample_data and README, not the files on the hub",
    columns=(Measure(MEASURE),),
    measure=measure,
    macro="file",
    has_gold_text=False,
    packages=("fuzzysearch", "bs4"),
)
