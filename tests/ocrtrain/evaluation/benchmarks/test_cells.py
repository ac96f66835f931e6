"""Tables of pages: cells and their neighbours, drawn by hand."""

from __future__ import annotations

import pytest

from ocrtrain.evaluation.benchmarks.cells import DOWN, LEFT, RIGHT, UP, Table, tables_in


def texts(table: Table, name: str, side: str) -> list[str]:
    [place] = [place for place, cell in table.cells.items() if cell.text == name]
    return sorted(table.cells[other].text for other in table.beside[side][place])


def headings(table: Table, name: str, side: str) -> list[str]:
    [place] = [place for place, cell in table.cells.items() if cell.text == name]
    return sorted(table.cells[other].text for other in table.headings(place, side))


def test_a_table_in_markdown() -> None:
    """A B / -- / 1 2 / 3 4, with a line of text before and after."""
    [table] = tables_in("text\n| A | B |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |\nmore")
    assert [cell.text for cell in table.cells.values()] == ["A", "B", "1", "2", "3", "4"]
    assert texts(table, "4", UP) == ["2"] and texts(table, "4", LEFT) == ["3"]
    assert texts(table, "A", RIGHT) == ["B"] and texts(table, "A", DOWN) == ["1"]
    assert texts(table, "4", RIGHT) == texts(table, "4", DOWN) == []
    assert headings(table, "4", UP) == ["B"] and headings(table, "4", LEFT) == ["3"]


def test_spans_in_html() -> None:
    """
    +---+-------+
    |   |   B   |
    | A +---+---+
    |   | C | D |
    +---+---+---+
    |   E   | F |
    +-------+---+
    """
    [table] = tables_in(
        "<TABLE><thead><tr><td rowspan=2>A</td><td colspan='2'>B</td></tr></thead>"
        "<tr><td>C</td><td>D<br>d</td></tr><tr><th colspan=2>E</th><td>F</td></tr></table>"
    )
    assert texts(table, "A", RIGHT) == ["B", "C"]
    assert texts(table, "B", DOWN) == ["C", "D\nd"]
    assert texts(table, "E", UP) == ["A", "C"]
    assert texts(table, "F", UP) == ["D\nd"] and texts(table, "F", LEFT) == ["E"]
    assert headings(table, "F", UP) == ["B"] and headings(table, "C", LEFT) == ["A"]
    assert headings(table, "D\nd", LEFT) == ["A"]


def test_without_headings_the_ends_of_the_way_count() -> None:
    rows = "".join(f"<tr><td>{one}</td><td>{other}</td></tr>" for one, other in ("AB", "CD"))
    [table] = tables_in(f"<table>{rows}</table>")
    assert headings(table, "D", UP) == ["B"] and headings(table, "D", LEFT) == ["C"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a | b", 0),  # one line
        ("a | b\nc | d", 1),
        ("|---|\n|---|", 0),
        ("<table></table>", 0),
        ("| a |\n| b |\n\n<table><tr><td>c</td></tr></table>", 2),
        ("", 0),
    ],
)
def test_what_is_a_table(text: str, count: int) -> None:
    assert len(tables_in(text)) == count
    assert len(tables_in(text, markdown=False)) == text.count("<td>")


def test_a_span_that_would_fill_the_memory_is_bounded() -> None:
    [table] = tables_in("<table><tr><td colspan=999999999>a</td><td rowspan=0>b</td></tr></table>")
    assert sorted(table.cells) == [(0, 0), (0, 1000)]
