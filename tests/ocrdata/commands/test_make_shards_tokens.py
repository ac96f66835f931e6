"""`make_shards.py --tokenizer`: token counts beside the shards; no other file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.commands import make_shards as tool
from ocrdata.planning.counting import count_shards
from ocrdata.reading.view import open_shards
from ocrdata.tokens.counts_list import read_counts_list
from ocrdata.tokens.rendering import count
from ocrdata.tokens.tokenizer import Tokenizer, train_tokenizer
from tests.support.commandkill import killed_and_run_again, words
from tests.support.servers.s3 import S3Server
from tests.support.shardcommand import environment, made, make_shards, one_line


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Tokenizer]:
    folder, found = tmp_path_factory.mktemp("tokenizers"), {}
    for name, text in (("one", "What is 12 + 30?"), ("two", "The answer is 42.")):
        found[folder / f"{name}.json"] = train_tokenizer([text] * 9, 280)
        found[folder / f"{name}.json"].save(folder / f"{name}.json")
    return found


def convert(home: Path, *more: object) -> str:
    done = make_shards(*words(home / "out", *more), env=environment(home))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_counts_are_written_with_the_shards(
    tmp_path: Path, tokenizers: dict[Path, Tokenizer]
) -> None:
    (one, first), (two, second) = tokenizers.items()
    convert(tmp_path / "plain")
    plain = made(tmp_path / "plain" / "out")
    printed = convert(tmp_path, "--tokenizer", one)
    assert f"tokenizer {first.fingerprint}" in printed
    files = made(tmp_path / "out")
    names = [f"sums-{number:03d}.tokens-{first.fingerprint}.parquet" for number in range(3)]
    listed = f"sums.tokens-{first.fingerprint}.json"
    assert sorted(files.keys() - plain.keys()) == [*names, listed]
    assert len(read_counts_list(tmp_path / "out" / listed).shards) == 3
    assert {name: files[name] for name in plain} == plain
    shards = open_shards(str(tmp_path / "out" / "sums.json"))
    found = [
        counts.turns(at) for _, counts in count_shards(shards, first) for at in range(len(counts))
    ]
    assert found == [count(one.messages, first) for one in shards]
    assert made(tmp_path / "out") == files
    # Another tokenizer adds its own counts; missing, truncated and wrong ones are recreated.
    convert(tmp_path, "--tokenizer", two)
    both = made(tmp_path / "out")
    assert {name: both[name] for name in files} == files and len(both) == len(files) + 4
    (tmp_path / "out" / names[0]).unlink()
    (tmp_path / "out" / names[1]).write_bytes(files[names[1]][:-5])
    (tmp_path / "out" / names[2]).write_bytes(files[names[1]])
    convert(tmp_path, "--tokenizer", one)
    assert made(tmp_path / "out") == both
    assert first.fingerprint != second.fingerprint


def test_one_shard_alone_is_counted(tmp_path: Path, tokenizers: dict[Path, Tokenizer]) -> None:
    file, tokenizer = next(iter(tokenizers.items()))
    convert(tmp_path, "--tokenizer", file, "--only", 1)
    assert f"sums-001.tokens-{tokenizer.fingerprint}.parquet" in made(tmp_path / "out")
    convert(tmp_path, "--tokenizer", file)
    whole = made(tmp_path / "out")
    assert len([name for name in whole if ".tokens-" in name]) == 4
    for path in (tmp_path / "out").glob("sums-001.*"):
        path.unlink()
    convert(tmp_path, "--tokenizer", file, "--only", 1)
    assert made(tmp_path / "out") == whole


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    done = make_shards(
        *words(tmp_path / "out", "--tokenizer", tmp_path / "absent"), env=environment(tmp_path)
    )
    assert done.returncode == 2
    assert "absent: " in one_line(done)
    assert not (tmp_path / "out").exists()


def test_killed_while_counting(tmp_path: Path, tokenizers: dict[Path, Tokenizer]) -> None:
    killed_and_run_again(tmp_path, next(iter(tokenizers)), wanted=2)


def test_counts_of_a_set_at_a_url_are_sent_with_it(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same bytes as on the disk; and added to a set that was sent without them."""
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    words = ["sums", "--limit", "25", "--shard-samples", "10", "--workers", "1", "--out"]
    counted = ["--tokenizer", "bytes"]
    tool.main([*words, str(tmp_path / "near"), *counted])
    near = {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()}
    assert sum(".tokens-" in name for name in near) == 4
    for number, first in enumerate(([], counted)):
        url = moto.url(f"counted-{number}")
        tool.main([*words, url, "--work", str(tmp_path / "work"), *first])
        tool.main([*words, url, *counted])
        assert moto.files(f"counted-{number}") == near
    assert not any((tmp_path / "work").iterdir())
