"""OmniDocBench: the texts, formulas, tables and reading order of a page in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein

from ocrdata.errors import RejectedRow
from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value
from ocrtrain.evaluation.benchmarks.cells import markdown_to_html
from ocrtrain.evaluation.benchmarks.teds import teds

TEXT, FORMULA, TABLE, ORDER, LENGTH = (
    "text edit", "formula edit", "table TEDS", "order edit", "length",
)  # fmt: skip
CDM = "formulas not scored by CDM, which renders them; their edit distance is in the table"
GROUPS = {"language": "language", "data_source": "page type", "layout": "layout"}
"""Facts of a page, and what the table calls them."""

EQUATION, TABLE_CATEGORY = "equation_isolated", "table"
SCORED_TEXTS = frozenset(("text_block", "title", "code_txt", "code_txt_caption", "reference"))

_IMAGE = re.compile(r"!\[.*?\]\(.*?\)")
_FENCE = re.compile(r"^```(?:markdown|html|latex)?\n?|```\n?$", re.MULTILINE)
_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL | re.IGNORECASE)
_DISPLAY = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]", re.DOTALL)
_NO_LETTER = re.compile(r"[^\w\u4e00-\u9fff]")
_ESCAPED = re.compile(r"\\t|\\n|/t|/n|\t|\n")
_DELIMITED = re.compile(r"\\\[(.+?)(?<!\\)\\\]", re.DOTALL)
_DROPPED = re.compile(
    r"\\tag\{.*?\}|\\hspace\{.*?\}|\\begin\{.*?\}|\\end\{.*?\}|\\arraycolsep.*?\}"
)
_STYLES = (
    "\\mathbf", "\\mathrm", "\\mathnormal", "\\mathit", "\\mathbb", "\\mathcal", "\\mathscr",
    "\\mathfrak", "\\mathsf", "\\mathtt", "\\textbf", "\\text", "\\boldmath", "\\boldsymbol",
    "\\operatorname", "\\bm", "\\symbfit", "\\mathbfcal", "\\symbf", "\\scriptscriptstyle",
    "\\notag", "\\setlength", "\\coloneqq", "\\space", "\\thickspace", "\\thinspace", "\\medspace",
    "\\nobreakspace", "\\negmedspace", "\\quad", "\\qquad", "\\enspace", "\\substackw", " ", "$$",
    "\\left", "\\right", "\\displaystyle",
)  # fmt: skip
"""What a formula is compared without, removed in this order."""


class Element(NamedTuple):
    """A part of an answer: its kind (`text`, `formula` or `table`), its content, and the text it is
    matched and compared by."""

    kind: str
    content: str
    normal: str


def measure(answer: str, gold: Gold) -> Measured:
    """Edit distances of the page's texts and formulas, TEDS of each table, edit distance of the
    order in which the matched texts were read, and the length beside them."""
    groups = {
        shown: (str(gold.facts[name]),) for name, shown in GROUPS.items() if gold.facts.get(name)
    }
    wanted: Sequence[Mapping[str, Any]] = gold.facts.get("elements") or ()
    if not wanted:
        raise RejectedRow("no elements of the page in meta.benchmark.facts")
    parts = elements_of(answer)
    found = [(LENGTH, len(answer) / len(gold.answers[0]))]

    tables = [one for one in wanted if one["category_type"] == TABLE_CATEGORY]
    read_tables = [part for part in parts if part.kind == "table"]
    pairs = assignment([one["content"] for one in tables], [part.content for part in read_tables])
    for number, one in enumerate(tables):
        at = pairs.get(number)
        found.append((TABLE, 0.0 if at is None else teds(read_tables[at].content, one["content"])))

    others = [one for one in wanted if one["category_type"] != TABLE_CATEGORY]
    normals = [_normal(one["category_type"] == EQUATION, one["content"]) for one in others]
    others = [one for one, normal in zip(others, normals, strict=True) if normal]
    normals = [normal for normal in normals if normal]
    read = [part for part in parts if part.kind != "table" and part.normal]
    pairs = assignment(normals, [part.normal for part in read])
    formulas = [at for at, one in enumerate(others) if one["category_type"] == EQUATION]
    texts = [at for at, one in enumerate(others) if one["category_type"] in SCORED_TEXTS]
    for name, members in ((TEXT, texts), (FORMULA, formulas)):
        if members:
            distances = [
                (normals[at], read[pairs[at]].normal if at in pairs else "") for at in members
            ]
            found.append((name, _page_distance(distances)))
    if texts:
        matched = sorted((pairs[at], at) for at in texts if at in pairs)
        found.append((ORDER, _normalised([at for _, at in matched], texts)))
    values = tuple(Value(name, value, groups) for name, value in found)
    return Measured(values, left_out={CDM: len(formulas)} if formulas else {})


def elements_of(answer: str) -> list[Element]:
    """The parts of an answer in Markdown, in their order: tables in HTML or Markdown, displayed
    formulas, and the rest by paragraphs (by lines, if there is no blank line)."""
    text = _FENCE.sub("", _IMAGE.sub("", answer))
    text = markdown_to_html(text)
    found: list[tuple[int, Element]] = []

    def cut(pattern: re.Pattern[str], kind: str) -> None:
        nonlocal text
        for match in pattern.finditer(text):
            content = match[0]
            normal = content if kind == "table" else _normal(True, content)
            found.append((match.start(), Element(kind, content, normal)))
        text = pattern.sub(lambda match: " " * len(match[0]), text)

    cut(_TABLE, "table")
    cut(_DISPLAY, "formula")
    blank = "\n\n" if "\n\n" in text else "\n"
    at = 0
    for block in text.split(blank):
        content = block.strip()
        if content:
            start = at + len(block) - len(block.lstrip())
            found.append((start, Element("text", content, _normal(False, content))))
        at += len(block) + len(blank)
    return [element for _, element in sorted(found, key=lambda one: one[0])]


def _normal(is_formula: bool, text: str) -> str:
    return normalised_formula(text) if is_formula else normalised_text(text)


def normalised_text(text: str) -> str:
    """Letters and digits alone."""
    return _NO_LETTER.sub("", _ESCAPED.sub("", text))


def normalised_formula(text: str) -> str:
    """LaTeX without delimiters, environments, fonts and spaces, in lower case."""
    text = text.strip().strip("$").strip("\n")
    if match := _DELIMITED.search(text):
        text = match[1].strip()
    text = _DROPPED.sub("", text).strip(".")
    for style in _STYLES:
        text = text.replace(style, "")
    return text.lower()


def assignment(golds: Sequence[str], answers: Sequence[str]) -> dict[int, int]:
    """The one-to-one matching of gold and read elements with the least sum of edit distances, by
    their numbers."""
    if not golds or not answers:
        return {}
    import numpy as np
    from rapidfuzz.process import cdist
    from scipy.optimize import linear_sum_assignment

    distances = cdist(golds, answers, scorer=Levenshtein.normalized_distance, dtype=np.float64)
    rows, columns = linear_sum_assignment(distances)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def _page_distance(pairs: Iterable[tuple[str, str]]) -> float:
    """Edits of all pairs / the sum of their longer lengths."""
    pairs = list(pairs)
    edits = sum(Levenshtein.distance(one, other) for one, other in pairs)
    return edits / sum(max(len(one), len(other)) for one, other in pairs)


def _normalised(one: Sequence[int], other: Sequence[int]) -> float:
    return float(Levenshtein.normalized_distance(one, other))


BENCHMARK = Benchmark(
    name="omnidocbench",
    title="OmniDocBench",
    version="1.6 (pages of any version are read)",
    definition="arXiv 2412.07626. text and formula: edits / longer lengths over the page, mean "
    "over pages; table: TEDS (arXiv 1911.10683), mean over tables; order: edit distance of the "
    "order of the matched texts. What the answer has and the page has not is not counted, so read "
    "length: characters of the answer / of the page. NOT the published numbers: parts are matched "
    "one to one by the least edit distance (simple_match in the code), where the leaderboard "
    "splits and joins them (quick_match), and formulas there are scored by CDM; so there is no "
    "overall score",
    normalisation="texts: letters and digits alone, so that line feeds, punctuation and Markdown "
    "do not count; case counts; inline formulas are compared as LaTeX, not as Unicode. Formulas: "
    "without fonts, spaces and environments, in lower case. Tables: header cells are cells, NFKC",
    checked="measure: TEDS against its published code on made tables; matching and the rest read "
    "in MDPBench's copy of the code and hand-computed; layout: lmms-eval's and MDPBench's readers, "
    "not the files of 1.6",
    columns=(
        Measure(TEXT, percent=False, lower=True),
        Measure(FORMULA, percent=False, lower=True),
        Measure(TABLE),
        Measure(ORDER, percent=False, lower=True),
        Measure(LENGTH, percent=False),
    ),
    measure=measure,
    packages=("apted", "bs4", "scipy"),
)
