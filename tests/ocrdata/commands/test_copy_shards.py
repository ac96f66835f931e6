"""What `copy_shards.py` prints and refuses; the copying itself is tested in `transfer`."""

import json
from pathlib import Path

import pytest

from ocrdata.commands.copy_shards import main
from ocrdata.errors import UsageError
from tests.support.rows import write_set


@pytest.fixture
def original(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    write_set(tmp_path / "set", "n", (5, 0, 9), ("PNG",), ".tar")
    return tmp_path / "set"


def test_figures(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum(path.stat().st_size for path in original.glob("*.tar"))
    found = []
    for more in ("--dry-run", "--json", "--json"):
        assert main([str(original), str(tmp_path / "out"), "--json", more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [one["shards"] for one in found] == [3, 3, 3]
    assert [one["copied"]["shards"] for one in found] == [3, 3, 0]
    assert [one["dry_run"] for one in found] == [True, False, False]
    assert {one["bytes"] for one in found} == {size} and found[2]["copied"]["bytes"] == 0
    assert found[1]["target"] == str(tmp_path / "out") and found[1]["source"] == str(original)


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--work", "x"], "--work"),
        (["--tokenizer", "missing.json"], "missing.json"),
    ],
)
def test_wrong_flags(original: Path, tmp_path: Path, more: list[str], fact: str) -> None:
    with pytest.raises(UsageError) as caught:
        main([str(original), str(tmp_path / "out"), *more])
    assert fact in str(caught.value) and not (tmp_path / "out").exists()


def test_a_url_that_cannot_be_written(original: Path) -> None:
    with pytest.raises(UsageError) as caught:
        main([str(original), "ftp://user:secret@host/x"])
    assert "ftp" in str(caught.value) and "secret" not in str(caught.value)
