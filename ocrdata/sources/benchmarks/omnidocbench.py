"""OmniDocBench (arXiv 2412.07626, hub: opendatalab/OmniDocBench): `OmniDocBench.json`, a list of
pages with their layout, and a folder `images`.

A page is `{"page_info": {"image_path": "NAME.jpg", "page_attribute": {"language": ...,
"data_source": ..., "layout": ...}}, "layout_dets": [{"category_type": "text_block", "order": 3,
"anno_id": 7, "text": ... or "latex" or "html"}], "extra": {"relation": [{"relation_type":
"truncated", "source_anno_id", "target_anno_id"}]}}`. The sample's answer is the page in reading
order: texts, formulas and tables, a blank line between them; its facts are the same as a list of
elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sources.benchmarks.questions import Asked, Layout

PROMPT = "Convert the page to Markdown."

TEXTS = ("text_block", "title", "code_txt", "code_txt_caption", "reference")
"""Categories whose texts are scored."""
FORMULA, TABLE = "equation_isolated", "table"
UNSCORED = (
    "figure_caption", "figure_footnote", "table_caption", "table_footnote", "code_algorithm",
    "code_algorithm_caption", "header", "footer", "page_footnote", "page_number",
    "equation_caption",
)  # fmt: skip
"""Categories that an answer may have or leave out: what was read of them is not counted."""
ATTRIBUTES = ("language", "data_source", "layout")


def read(record: Mapping[str, Any]) -> Asked:
    """One page. Raises RejectedRow."""
    info = record.get("page_info")
    path = info.get("image_path") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(path, str) or not path:
        raise RejectedRow("no page_info.image_path")
    elements = _elements(record)
    texts = [element["content"] for element in elements if element["category_type"] not in UNSCORED]
    attributes = info.get("page_attribute")
    known = attributes if isinstance(attributes, dict) else {}
    facts = {
        "elements": elements,
        **{name: known[name] for name in ATTRIBUTES if isinstance(known.get(name), str)},
    }
    if not texts:
        raise RejectedRow("no text, formula or table that is scored")
    return Asked(PurePosixPath(path).name, PROMPT, ["\n\n".join(texts)], facts=facts)


def _elements(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The elements of a page in reading order; parts that a column break cuts apart are one, in
    their order, without anything between them. Raises RejectedRow."""
    boxes = record.get("layout_dets")
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        raise RejectedRow("layout_dets is not a list of objects")
    found = []
    for part in _merged(boxes, record):
        first = part[0]
        kind = first.get("category_type")
        if kind == FORMULA:
            content = first.get("latex")
        elif kind == TABLE:
            content = first.get("html")
        elif kind in TEXTS or kind in UNSCORED:
            content = "".join(str(box.get("text") or "") for box in part)
        else:
            continue
        if isinstance(content, str) and content.strip():
            found.append({"category_type": kind, "order": _order(first), "content": content})
    return sorted(found, key=_order)


def _merged(boxes: list[dict[str, Any]], record: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The boxes of each element. Truncated ones are joined by their relations."""
    extra = record.get("extra")
    relations = extra.get("relation") if isinstance(extra, dict) else None
    group: dict[Any, set[Any]] = {}
    for relation in relations if isinstance(relations, list) else []:
        if isinstance(relation, dict) and relation.get("relation_type") == "truncated":
            ends = {relation.get("source_anno_id"), relation.get("target_anno_id")}
            ends = ends.union(*(group.get(end, set()) for end in ends))
            group |= dict.fromkeys(ends, ends)
    parts: dict[Any, list[dict[str, Any]]] = {}
    for number, box in enumerate(boxes):
        name = box.get("anno_id")
        key = frozenset(group[name]) if name in group else ("alone", number)
        parts.setdefault(key, []).append(box)
    return [sorted(part, key=_order) for part in parts.values()]


def _order(element: Mapping[str, Any]) -> float:
    """Its place in the reading order; what has none comes first."""
    value = element.get("order")
    return float(value) if isinstance(value, int | float) else 0.0


LAYOUT = Layout(
    "omnidocbench",
    "OmniDocBench.json, with --images its folder images",
    "research only",
    read,
)
