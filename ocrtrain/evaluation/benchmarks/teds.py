"""TEDS, the tree edit distance similarity of two tables in HTML (arXiv 1911.10683, section 4.1).

1 - distance / the number of elements of the larger table. An inserted or deleted element costs 1,
as does one with another tag or span; two cells that differ in their text cost the edit distance of
their characters, a tag inside a cell being one, divided by the longer length.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from bs4 import Tag

CELL = "td"
LARGEST_TABLE = 2_000
"""Elements; a larger answer scores 0, because comparing it takes minutes."""

_ATTRIBUTES = ("style", "height", "width", "align", "class")
_UNWRAPPED = ("thead", "tbody", "span", "sup", "sub", "div", "p")


class Node:
    """An element of a table, as apted takes it: a cell has its characters and no children."""

    def __init__(self, tag: str, spans: tuple[int, int] = (1, 1), text: tuple[str, ...] = ()):
        self.tag, self.spans, self.text = tag, spans, text
        self.children: list[Node] = []


class Costs:
    """What edits cost; the names are apted's."""

    valuecls = float

    def delete(self, node: Node) -> float:
        """Of an element."""
        return 1.0

    def insert(self, node: Node) -> float:
        """Of an element."""
        return 1.0

    def rename(self, one: Node, other: Node) -> float:
        """Of making one element the other, in [0, 1]."""
        if (one.tag, one.spans) != (other.tag, other.spans):
            return 1.0
        return float(Levenshtein.normalized_distance(one.text, other.text))

    def children(self, node: Node) -> list[Node]:
        """Of an element, in their order."""
        return node.children


def teds(answer: str, gold: str) -> float:
    """The similarity of two tables in HTML, in [0, 1]; 0 if there is no table in one of them, or if
    a span is no number."""
    from apted import APTED

    found = [_table(text) for text in (answer, gold)]
    if found[0] is None or found[1] is None:
        return 0.0
    sizes = [len(table.find_all(True)) for table in found if table is not None]
    if not max(sizes):
        return 0.0
    if sizes[0] > LARGEST_TABLE:
        return 0.0
    try:
        trees = [_tree(table) for table in found if table is not None]
    except ValueError:
        return 0.0
    distance: Any = APTED(trees[0], trees[1], Costs()).compute_edit_distance()
    return 1 - float(distance) / max(sizes)


def normalised_table(text: str) -> str:
    """A table as it is compared: header cells are cells, groups of rows and layout are removed,
    letters are in compatible form (NFKC), white space is one blank."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    for cell in soup.find_all("th"):
        cell.name = CELL
    for formula in soup.find_all("math"):
        formula.replace_with(f"${formula.get('alttext', '')}$")
    for tag in soup.find_all(_UNWRAPPED):
        tag.unwrap()
    for tag in soup.find_all("colgroup"):
        tag.decompose()
    for tag in soup.find_all(True):
        for name in _ATTRIBUTES:
            del tag[name]
    plain = unicodedata.normalize("NFKC", html.unescape(str(soup)).replace("\n", "")).strip()
    return re.sub(r"\s+", " ", plain)


def _table(text: str) -> Tag | None:
    from bs4 import BeautifulSoup, Tag

    found = BeautifulSoup(normalised_table(text), "html.parser").find("table")
    return found if isinstance(found, Tag) else None


def _tree(element: Tag) -> Node:
    """Raises ValueError for a span that is no number."""
    from bs4 import Tag

    if element.name == CELL:
        spans = tuple(int(str(element.get(name, "1"))) for name in ("colspan", "rowspan"))
        return Node(CELL, (spans[0], spans[1]), tuple(_characters(element)))
    node = Node(element.name)
    node.children = [_tree(child) for child in element.children if isinstance(child, Tag)]
    return node


def _characters(element: Tag) -> list[str]:
    """The characters of a cell, and the tags inside it as one each."""
    from bs4.element import NavigableString, Tag

    found = []
    for child in element.children:
        if isinstance(child, Tag):
            found += [f"<{child.name}>", *_characters(child), f"</{child.name}>"]
        elif type(child) is NavigableString:
            found += list(child)
    return found
