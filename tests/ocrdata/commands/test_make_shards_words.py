"""`tools/make_shards.py` without a hub: files, synthetic rows, and invalid command lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ocrdata.commands import make_shards as tool
from ocrdata.conversion import convert
from ocrdata.errors import DiskError, OcrError, UsageError, UsageErrors
from ocrdata.reading.view import open_shards
from ocrdata.sample import text_of
from ocrdata.shards.manifest import read_manifest
from ocrdata.sources.fonts import find_fonts
from ocrdata.sources.registry import REGISTRY
from tests.support.hubdata import SHARED, shared
from tests.support.shardcommand import environment, made, make_shards, one_line


@pytest.mark.parametrize("kind", ["charts", "sums"])
def test_synthetic_rows_need_no_input(tmp_path: Path, kind: str) -> None:
    words = [kind, "--shard-samples", 16]
    for out, more in (("a", ["--limit", 40]), ("b", ["--stop", 40, "--workers", 1])):
        done = make_shards(*words, "--out", tmp_path / out, *more, env=environment(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "40 samples of 40 rows" in done.stdout
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    for name in first.keys() - {f"{kind}.json"}:  # it contains the command
        assert first[name] == second[name]
    seeded = make_shards(
        *words, "--limit", 40, "--seed", 5, "--out", tmp_path / "a", env=environment(tmp_path)
    )
    assert seeded.returncode == 2 and "seed was 0, now 5" in one_line(seeded)
    assert open_shards(str(tmp_path / "a" / f"{kind}-<000..002>.tar"))[39].turns >= 1


def test_drawn_shards_are_made_alone_continued_and_kept_apart_from_other_fonts(
    tmp_path: Path,
) -> None:
    words = ["glyphs", "--shard-samples", "16", "--workers", "1", "--characters", "3..4"]

    def make(out: str, *more: str) -> dict[str, bytes]:
        assert tool.main([*words, "--out", str(tmp_path / out), "--limit", "40", *more]) == 0
        return made(tmp_path / out)

    whole = make("a")
    (tmp_path / "a" / "glyphs-001.tar").unlink()
    assert make("a", "--only", "1") == whole
    make("b", "--only", "2")
    make("b", "--only", "0")
    assert make("b") == whole
    with pytest.raises(UsageError, match=r"fonts was .*Aileron.*, now .*Lato"):
        make("a", "--font", "Lato")
    with pytest.raises(UsageError, match=r"words was 'train', now 'held-out'"):
        make("a", "--words", "held-out", "--name", "glyphs")
    make("a", "--words", "held-out")
    answers = {
        name: {text_of(sample.messages[1]).lower() for sample in open_shards(str(path))}
        for name in ("glyphs", "glyphs-held-out")
        for path in [tmp_path / "a" / f"{name}.json"]
    }
    assert len(answers["glyphs"]) > 35 and not answers["glyphs"] & answers["glyphs-held-out"]


def test_the_folder_of_a_font_is_not_in_the_manifest(tmp_path: Path) -> None:
    (lato,) = find_fonts(["Lato"])
    assert lato.path is not None
    font = tmp_path / "my.ttf"
    font.write_bytes(lato.path.read_bytes())
    words = ["lines", "--limit", "2", "--workers", "1", "--font", str(font), "Roboto"]
    assert tool.main([*words, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "lines.json").read_text()
    assert str(tmp_path) not in text
    assert read_manifest(tmp_path / "out" / "lines.json").provenance["command"] == (
        "python tools/make_shards.py lines --limit 2 --font my.ttf Roboto"
    )


def test_the_ten_overfit_images(tmp_path: Path) -> None:
    file = shared("overfit10") / "overfit_dataset.json"
    words = ["jsonl", "--path", file, "--out", tmp_path / "out", "--name", "overfit10"]
    done = make_shards(*words, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    shards = open_shards(str(tmp_path / "out" / "overfit10-000.tar"))
    assert len(shards) == 10
    manifest = read_manifest(tmp_path / "out" / "overfit10.json")
    assert manifest.provenance["command"] == (
        "python tools/make_shards.py jsonl --name overfit10 --path overfit_dataset.json"
    )
    assert str(SHARED) not in (tmp_path / "out" / "overfit10.json").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["jsonl", "--path", "https://user:secret@host/rows.jsonl", "--out", "out"],
        ["jsonl", "--path", "rows.jsonl", "--images", "https://user:secret@host/i", "--out", "out"],
    ],
)
def test_urls_where_local_paths_are_needed_are_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a path, a URL would become a folder named after it, password included."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"host.*local path") as caught:
        tool.main(words)
    assert "secret" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["--out", "s3://user:secret@host/folder"], "s3://host/folder"),
        (["--out", "ftp://user:secret@host/folder"], "ftp://host/folder"),
        (["--out", "out", "--work", "work"], "--work"),
    ],
)
def test_places_that_cannot_be_written_are_refused(
    words: list[str], fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        tool.main(["sums", "--limit", "3", *words])
    assert fact in str(caught.value) and "secret" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_too_many_rejected_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "q", "answer": "a"}\n' * 20 + "broken\n")
    words = ["jsonl", "--path", file, "--out", tmp_path / "out"]
    done = make_shards(*words, env=environment(tmp_path))
    assert done.returncode == 1
    assert "1 of 21 rows" in one_line(done) and "row 20)" in done.stderr
    done = make_shards(*words, "--max-reject-fraction", 0.1, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "rejected  1 rows" in done.stdout and "rows.rejects.jsonl" in done.stdout
    assert re.search("1 x .*JSON", done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: KIND"),
        (["chart"], "invalid choice: 'chart'"),
        (["finevision"], "required: --subset"),
        (["jsonl", "--path", "none.jsonl"], "none.jsonl: "),
        (["chartqa", "--workers", "many"], "invalid int value: 'many'"),
        (["chartqa", "--limit", "0"], "--limit 0: "),
        (["chartqa", "--name", "a b"], "--name 'a b': "),
        (["chartqa", "--repo", "FineVision"], "OWNER/NAME"),
        (["chartqa", "--lim", "3"], "unrecognized arguments: --lim 3"),
    ],
)
def test_invalid_command_lines(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tool.main(words)
    assert message in str(caught.value) and len(caught.value.messages) == 1


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    gone = [str(tmp_path / name) for name in ("a.jsonl", "images", "t.json")]
    words = ["jsonl", "--path", gone[0], "--images", gone[1], "--tokenizer", gone[2], "--limit",
             "0", "--workers", "x", "--name", "a b", "--bad"]  # fmt: skip
    with pytest.raises(UsageErrors) as caught:
        tool.main(words)
    told = caught.value.messages
    assert len(told) == 7
    for fact in ("--limit 0", "--workers", "'a b'", "--bad", f"--tokenizer {gone[2]}", *gone):
        assert len([line for line in told if fact in line]) == 1, fact
    with pytest.raises(UsageErrors) as caught:
        tool.main(["jsonl", "--limit", "0"])
    assert [fact in line for fact, line in zip(
        ("--path", "--limit 0"), caught.value.messages, strict=True)] == [True, True]  # fmt: skip
    with pytest.raises(UsageError, match="'chrts'"):
        tool.main(["chrts", "--limit", "0"])


def test_paths_that_are_patterns_are_left_to_their_source(tmp_path: Path) -> None:
    gone, pattern = str(tmp_path / "gone.tar"), str(tmp_path / "*.parquet")
    with pytest.raises(UsageError, match=re.escape(gone)):
        tool.main(["webdataset", "--path", gone])
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError) as caught:
        tool.main(["parquet", "--path", pattern, "--limit", "0"])
    (told,) = caught.value.messages
    assert "--limit 0" in told


def test_every_kind_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        tool.main(["--help"])
    whole_help = capsys.readouterr().out
    assert "python tools/make_shards.py chartqa" in whole_help
    for kind in REGISTRY:
        assert kind in whole_help
        with pytest.raises(SystemExit, match="0"):
            tool.main([kind, "--help"])
        one = capsys.readouterr().out
        for flag in ("out", "name", "shard-samples", "start", "stop", "limit", "workers", "only"):
            assert f"--{flag}" in one


def test_a_manifest_that_alone_was_missing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise DiskError("no space")

    words = ["sums", "--limit", "20", "--workers", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(convert, "write_manifest", refuse)
        with pytest.raises(DiskError):
            tool.main(words)
    assert not (tmp_path / "sums.json").exists()
    assert tool.main(words) == 0
    said = capsys.readouterr().out
    assert "wrote the manifest" in said and "already complete" not in said
    assert tool.main(words) == 0
    assert "already complete" in capsys.readouterr().out


def test_the_figures_of_a_conversion_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "q", "answer": "a"}\n' * 40 + "broken 7\n")
    out = tmp_path / "out"
    words = ["jsonl", "--path", str(file), "--out", str(out), "--shard-samples", "16", "--json"]
    assert tool.main([*words, "--max-reject-fraction", "0.1"]) == 0
    said = capsys.readouterr()
    found, manifest = json.loads(said.out), read_manifest(out / "rows.json")
    assert found.items() >= manifest.totals.items()
    assert (found["rows"], found["samples"], found["turns"]) == (41, 40, 40)
    assert found["shards"] == [str(out / f"rows-{number:03d}.tar") for number in range(3)]
    assert found["provenance"] == manifest.provenance
    assert found["rejects"]["rows"] == 1 and found["rejects"]["file"].endswith("rejects.jsonl")
    assert (found["made"]["shards"], found["made"]["rows"]) == (3, 41)
    assert "rows/s" in said.err, "progress is on standard error"
    assert tool.main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["made"] == {"shards": 0, "rows": 0, "bytes": 0, "seconds": 0}
    assert {**again, "made": 0} == {**found, "made": 0}
    assert tool.main([*words, "--only", "1"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one == {
        "shard": str(out / "rows-001.tar"), "samples": 16, "bytes": manifest.shards[1].bytes,
    }  # fmt: skip


def test_more_synthetic_rows_than_a_complete_set_has_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sums", "--workers", "1", "--out", str(tmp_path), "--limit"]
    assert tool.main([*words, "30"]) == 0
    before = made(tmp_path)
    for other in ("31", "29"):
        with pytest.raises(UsageError, match=f"rows was 30, now {other}") as caught:
            tool.main([*words, other])
        assert "\n" not in str(caught.value) and "--name" in str(caught.value)
    assert made(tmp_path) == before
    capsys.readouterr()
    assert tool.main([*words, "30"]) == 0
    assert "already complete" in capsys.readouterr().out


def test_a_conversion_stopped_by_a_bad_row_continues_with_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows that were accepted have changed too: only the user can tell that it is no other
    file."""
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    line = '{"prompt": "q", "answer": "%s"}\n'
    file.write_text(line % "a" * 20 + "broken\n")
    words = ["jsonl", "--path", str(file), "--out", str(out), "--workers", "1"]
    with pytest.raises(OcrError, match="1 of 21 rows"):
        tool.main(words)
    file.write_text(line % "b" * 21)
    with pytest.raises(UsageError, match=r"1 of them, first of shard 0.*--discard"):
        tool.main(words)
    assert tool.main([*words, "--discard"]) == 0
    assert "1 discarded" in capsys.readouterr().err
    assert len(open_shards(str(out / "rows.json"))) == 21
