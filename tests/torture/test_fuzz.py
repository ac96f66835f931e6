"""Ten thousand examples for each property of the parsers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fuzz, fuzzruns
from tests.support.fuzz import Property, examine
from tests.support.results import record

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("one", fuzz.PROPERTIES + fuzzruns.PROPERTIES, ids=lambda one: one.name)
def test_ten_thousand_examples(
    one: Property, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    count = examine(one, tmp_path, 10_000)
    record("fuzz", f"{one.name:44} {count:>7,} examples, each a value or an OcrError")
