"""Tables in a page's Markdown or HTML -> their cells and which are beside each other.

A cell is known by the row and column of its upper left corner. What is beside it are the first
cells found in each row (or column) that it spans, so a cell may have several neighbours on a side.
The headings above a cell are those met on the way up; where none is met, the cells at the end of
the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import NamedTuple

Place = tuple[int, int]
UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"

LARGEST_SPAN = 1_000
"""Rows or columns of a cell; browsers have such a limit as well."""


class Cell(NamedTuple):
    """One cell as it is written."""

    text: str
    rows: int = 1
    columns: int = 1
    heading: bool = False


@dataclass
class Table:
    """Cells by their place, and the places beside each by side."""

    cells: dict[Place, Cell] = field(default_factory=dict)
    beside: dict[str, dict[Place, set[Place]]] = field(default_factory=dict)

    def headings(self, place: Place, side: str) -> set[Place]:
        """The headings on the way to a side, or else where the ways end; without the cell."""
        seen: set[Place] = set()
        found: set[Place] = set()
        ends: set[Place] = set()
        open_places = {place}
        while open_places:
            one = open_places.pop()
            seen.add(one)
            if self.cells[one].heading:
                found.add(one)
            onward = self.beside[side][one]
            if not onward:
                ends.add(one)
            open_places |= onward - seen
        return (found - {place}) or (ends - {place})


def tables_in(text: str, *, markdown: bool = True) -> list[Table]:
    """The tables of a page, those in Markdown first."""
    rows = [*(_markdown_tables(text) if markdown else ()), *_html_tables(text)]
    return [table for one in rows if (table := _table(one)).cells]


def _table(rows: list[list[Cell]]) -> Table:
    """Lay the cells out as a browser does: those that span rows push later ones to the right."""
    table = Table()
    grid: list[dict[int, Place]] = []
    spanning: dict[int, tuple[Place, int]] = {}
    for number, cells in enumerate(rows):
        line: dict[int, Place] = {}
        column = 0
        for cell in cells:
            while column in spanning:
                column = _continue(spanning, line, column)
            place = (number, column)
            table.cells[place] = cell
            for _ in range(cell.columns):
                line[column] = place
                spanning.pop(column, None)
                if cell.rows > 1:
                    spanning[column] = (place, cell.rows)
                column += 1
        for at in sorted(set(spanning) - set(line)):
            _continue(spanning, line, at)
        for at in [at for at, (place, _) in spanning.items() if place[0] == number]:
            spanning[at] = (spanning[at][0], spanning[at][1] - 1)
        grid.append(line)
    table.beside = _neighbours(table.cells, grid)
    return table


def _continue(spanning: dict[int, tuple[Place, int]], line: dict[int, Place], column: int) -> int:
    """A cell of an earlier row takes this column; returns the next one."""
    place, left = spanning[column]
    line[column] = place
    if left > 1:
        spanning[column] = (place, left - 1)
    else:
        del spanning[column]
    return column + 1


def _neighbours(
    cells: dict[Place, Cell], grid: list[dict[int, Place]]
) -> dict[str, dict[Place, set[Place]]]:
    beside: dict[str, dict[Place, set[Place]]] = {
        side: {place: set() for place in cells} for side in (UP, DOWN, LEFT, RIGHT)
    }
    width = max((column for line in grid for column in line), default=-1) + 1
    for along_rows, before, after in ((True, LEFT, RIGHT), (False, UP, DOWN)):
        for at in range(len(grid) if along_rows else width):
            places = (
                [grid[at][column] for column in sorted(grid[at])]
                if along_rows
                else [line[at] for line in grid if at in line]
            )
            for one, other in pairwise(places):
                if one != other:
                    beside[after][one].add(other)
                    beside[before][other].add(one)
    return beside


def markdown_to_html(text: str) -> str:
    """A text in Markdown with its tables in HTML: those with a rule of dashes below their first
    line."""
    lines = []
    for is_table, block in _blocks(text):
        if is_table and _without_rule(block[1:2]) == []:
            rows = (_markdown_cells(line) for line in _without_rule(block))
            cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows if row)
            lines.append("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")
        else:
            lines += block
    return "\n".join(lines)


def _blocks(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The lines of a text; those with a bar that follow each other, two or more, together."""
    for has_bar, group in groupby(text.split("\n"), lambda line: "|" in line):
        block = list(group)
        yield has_bar and len(block) >= 2, block


def _markdown_tables(text: str) -> Iterator[list[list[Cell]]]:
    """Every two or more lines with a bar that follow each other; the first row and the first column
    are headings."""
    for is_table, block in _blocks(text.strip()):
        if is_table:
            rows = [cells for line in _without_rule(block) if (cells := _markdown_cells(line))]
            yield [
                [Cell(cell, heading=row == 0 or at == 0) for at, cell in enumerate(cells)]
                for row, cells in enumerate(rows)
            ]


def _without_rule(lines: list[str]) -> list[str]:
    """Without the lines that are only bars, dashes, colons and blanks."""
    return [line for line in lines if not line.strip() or not set(line) <= set("- :|")]


def _markdown_cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.split("|")]
    if cells and not cells[0]:
        cells = cells[1:]
    if cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _html_tables(text: str) -> Iterator[list[list[Cell]]]:
    if not re.search("<table", text, re.IGNORECASE):
        return
    from bs4 import BeautifulSoup, Tag

    for table in BeautifulSoup(text, "html.parser").find_all("table"):
        assert isinstance(table, Tag)
        rows = table.find_all("tr")
        found = []
        for number, row in enumerate(rows):
            assert isinstance(row, Tag)
            in_head = row.find_parent("thead") is not None
            cells = []
            for cell in row.find_all(["th", "td"], recursive=False):
                assert isinstance(cell, Tag)
                for line_break in cell.find_all("br"):
                    line_break.replace_with("\n")
                rows_left = len(rows) - number
                cells.append(
                    Cell(
                        cell.get_text().strip(),
                        _span(cell.get("rowspan"), rows_left),
                        _span(cell.get("colspan"), 1),
                        in_head or cell.name == "th",
                    )
                )
            found.append(cells)
        yield found


def _span(value: object, for_zero: int) -> int:
    """A span as written: from 1 on; 0 stands for all that is left, other words for 1."""
    text = str(value or "").strip()
    if text == "0":
        return max(1, min(for_zero, LARGEST_SPAN))
    return min(int(text), LARGEST_SPAN) if re.fullmatch("[0-9]{1,9}", text) and int(text) else 1
