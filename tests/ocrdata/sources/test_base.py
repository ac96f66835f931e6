"""What every source shares."""

from __future__ import annotations

import pytest

from ocrdata.sources.base import safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chartqa", "chartqa"),
        ("chart2text(cauldron)", "chart2text-cauldron"),
        ("olmOCR-mix-0225-documents", "olmOCR-mix-0225-documents"),
        ("../a b", "a-b"),
        ("()", "shards"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name
