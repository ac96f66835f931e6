"""No pickle is executed, wherever it is put: it ends as our error, or is the bytes it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from tests.support.canary import ENTRIES, EXECUTE, Entry


@pytest.mark.parametrize("kind", EXECUTE)
def test_the_canary_sings_for_who_executes(kind: str, tmp_path: Path) -> None:
    """Else its silence elsewhere would show nothing."""
    make: Callable[[Path], bytes]
    make, execute = EXECUTE[kind]
    mark = tmp_path / "mark"
    data = make(mark)
    assert not mark.exists(), "making it is not executing it"
    execute(data)
    assert mark.exists()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_it_is_silent_here(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
