"""TEDS of tables whose distance can be counted by hand."""

from __future__ import annotations

import pytest

from ocrtrain.evaluation.benchmarks.teds import LARGEST_TABLE, normalised_table, teds


def table(*rows: str, cell: str = "td") -> str:
    """One letter a cell."""
    cells = ("".join(f"<{cell}>{letter}</{cell}>" for letter in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        (table("ab", "cd"), table("ab", "cd"), 1.0),
        # 6 elements: 2 rows and 4 cells
        (table("ab", "cx"), table("ab", "cd"), 1 - 1 / 6),
        (table("ab"), table("ab", "cd"), 1 - 3 / 6),
        (table("ab", "cd"), table("ab"), 1 - 3 / 6),
        (table("ab", "cd", cell="th"), table("ab", "cd"), 1.0),
        (f"<p>x</p>{table('ab')}", table("ab"), 1.0),
        ("<table><thead><tr><td>a</td></tr></thead></table>", table("a"), 1.0),
        ('<table><tr><td colspan="2">a</td></tr></table>', table("a"), 1 - 1 / 2),
        ("<table><tr><td>abcd</td></tr></table>", "<table><tr><td>abxx</td></tr></table>", 0.75),
        ("<table><tr><td class='x'>a</td></tr></table>", table("a"), 1.0),
        ('<table><tr><td colspan="two">a</td></tr></table>', table("a"), 0.0),
        ("a", table("a"), 0.0),
        (table("a"), "", 0.0),
        ("<table></table>", "<table></table>", 0.0),
        # the tag inside the cell is one more element, and two more characters
        ("<table><tr><td><b>a</b></td></tr></table>", table("a"), 1 - (2 / 3) / 3),
    ],
)
def test_hand_computed(answer: str, gold: str, expected: float) -> None:
    assert teds(answer, gold) == pytest.approx(expected)


def test_a_table_without_end_scores_nothing_at_once() -> None:
    assert teds(table(*["ab"] * LARGEST_TABLE), table("ab")) == 0.0


def test_what_is_made_equal() -> None:
    text = (
        "<table border=1><thead><tr><th style='x'>\uff21<sup>2</sup>\n b</th></tr></thead></table>"
    )
    assert normalised_table(text) == '<table border="1"><tr><td>A2 b</td></tr></table>'
