"""No canary is executed anywhere: it is refused with our error, or returned as bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from tests.support.canary import ENTRIES, EXECUTE, Entry


@pytest.mark.parametrize("kind", EXECUTE)
def test_an_unsafe_reader_triggers_the_canary(kind: str, tmp_path: Path) -> None:
    """Without this, an untouched mark would prove nothing."""
    make: Callable[[Path], bytes]
    make, execute = EXECUTE[kind]
    mark = tmp_path / "mark"
    data = make(mark)
    assert not mark.exists(), "writing it must not execute it"
    execute(data)
    assert mark.exists()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_no_reader_triggers_the_canary(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    folder.mkdir()
    monkeypatch.chdir(folder)
    entry.put(folder, mark)
    if entry.harmless:
        entry.read(folder)
    else:
        with pytest.raises(OcrError):
            entry.read(folder)
    assert not mark.exists()
