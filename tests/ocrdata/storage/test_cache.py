from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.storage.cache import CACHE_VARIABLE, cache_folder


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "ocr-shards"
