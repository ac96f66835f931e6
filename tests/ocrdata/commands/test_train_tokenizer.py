"""`tools/train_tokenizer.py` as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.commands.train_tokenizer import main
from ocrdata.errors import UsageError
from ocrdata.sample import from_turns
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer

ROOT = Path(__file__).parents[3]
TURNS = [("What is the value of the blue bar?", "12 percent"), ("And the red one?", "17")]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    path = tmp_path / "sums-000.tar"
    with ShardWriter(path) as writer:
        for number in range(8):
            turns = [(f"{number}: {user}", answer) for user, answer in TURNS]
            writer.write(make_key(number), from_turns(turns, [], source="sums", meta={}))
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/train_tokenizer.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
    )


def texts(rows: int) -> list[str]:
    pairs = [(f"{n}: {user}", answer) for n in range(rows) for user, answer in TURNS]
    return [text for pair in pairs for text in pair]


def test_it_trains_on_every_text(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "tokenizer.json"
    done = command("--shards", shards, "--vocab-size", 300, "--out", out)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    trained = load_tokenizer(out)
    assert trained.fingerprint == train_tokenizer(texts(8), 300).fingerprint
    assert trained.fingerprint in done.stdout and "300 ids" in done.stdout
    assert "in 8 samples" in done.stdout
    assert f"{sum(len(text) for text in texts(8))} B of text" in done.stdout


def test_a_limit_and_several_sets(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    arguments = ("--limit", 2, "--vocab-size", 5000, "--out", out)
    done = command("--shards", shards, f"{shards}[6:]", *arguments)
    assert done.returncode == 0, done.stderr
    assert "in 4 samples" in done.stdout and "5,000 ids" in done.stdout


def test_mistakes_are_clear_errors(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    other = tmp_path / "other.json"
    other.write_text('{"shards": []}')
    for arguments, message in (
        (("--shards", f"{shards}[50:]", "--out", out), "sums-000.tar[50:] "),
        (("--shards", shards, "--out", other), "other.json exists but is not a tokenizer"),
        (("--shards", tmp_path / "none.tar", "--out", out), "none.tar"),
        (("--shards", shards, "--out", tmp_path / "t.pkl"), "t.pkl: the file is JSON"),
        (
            ("--shards", shards, "--out", "https://me:secret@host/t.json"),
            "https://host/t.json: must be a local path",
        ),
        (("--shards", shards, "--out", out, "--limit", 0), "--limit 0"),
        (("--shards", shards, "--out", out, "--vocab-size", 100), "100"),
        (("--out", out), "--shards"),
    ):
        done = command(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr
    assert not out.exists() and other.read_text() == '{"shards": []}'


def test_single_characters(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    words = ["--shards", str(shards), "--vocab-size", "300", "--out", str(out)]
    assert main([*words, "--single", "0-9"]) == 0
    trained = load_tokenizer(out)
    assert trained.fingerprint == train_tokenizer(texts(8), 300, single="0-9").fingerprint
    assert [trained.decode([token]) for token in trained.encode("12 percent")][:2] == ["1", "2"]
    with pytest.raises(UsageError, match="--single '9-0'"):
        main([*words, "--single", "9-0"])
