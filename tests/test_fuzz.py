"""Two hundred examples for each property of the parsers; ten thousand in `make torture`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fuzz, fuzzruns
from tests.support.fuzz import Property, examine


@pytest.mark.parametrize("one", fuzz.PROPERTIES + fuzzruns.PROPERTIES, ids=lambda one: one.name)
def test_two_hundred_examples(
    one: Property, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    assert examine(one, tmp_path, 200) >= 190
