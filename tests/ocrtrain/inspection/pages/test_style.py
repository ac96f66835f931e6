"""The style sheet: it asks for nothing, and the page uses no class that it does not know."""

from __future__ import annotations

import re

from ocrdata.errors import TrainError
from ocrtrain.inspection.pages.batch import page
from ocrtrain.inspection.pages.style import STYLE
from ocrtrain.inspection.report import Limits
from tests.support.showing import Page, shown_of, talk


def test_nothing_is_fetched_and_nothing_is_left_open() -> None:
    assert not re.search(r"url\(|@import|@font-face|<|http", STYLE)
    assert STYLE.count("{") == STYLE.count("}")


def test_every_class_of_the_page_has_a_style() -> None:
    shown = shown_of([[talk("q", "a", 1), talk("q", "a", 5)], ["skipped"], [talk("q", "a")]])
    problem = TrainError("x")
    object.__setattr__(shown, "problem", problem)
    found = Page("".join(page(shown, Limits(images=2))))
    used = {name for _, values in found.tags for name in (values.get("class") or "").split()}
    known = set(re.findall(r"\.([a-z]+)", STYLE))
    assert used - known <= {"word", "above"}, "these two need none"
    assert {"segment", "beside", "problem", "bad", "hole"} <= used
