from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.storage.cache import CACHE_VARIABLE, cache_folder, scratch_folder


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "ocr-shards"


def test_one_folder_has_one_place_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to("set")
    monkeypatch.chdir(tmp_path / "set")
    found = scratch_folder(str(tmp_path / "set"))
    assert found.parent == tmp_path / "cache"
    assert {scratch_folder(name) for name in ("", ".", "../link", "../set/")} == {found}
    assert scratch_folder("..") != found


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="home"):
        scratch_folder("shards")
