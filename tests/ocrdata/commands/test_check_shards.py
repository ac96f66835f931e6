import json
import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.commands import check_shards as tool
from ocrdata.errors import DiskError, ShardError, UsageErrors
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path, read_index
from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.fetching import fetcher, use_cache
from tests.support.far import FarFolder
from tests.support.rows import flip, image, write_set, write_tar
from tests.support.shardcommand import ROOT, environment, make_shards


def check_shards(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tools" / "check_shards.py"), *map(str, words)],
        env=environment(cwd), cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_undamaged_shards_are_summarized(tmp_path: Path) -> None:
    write_set(tmp_path, "one", [5, 5], ("PNG", "GIF"))
    write_set(tmp_path, "two", [3], ())
    done = check_shards("one.json", "two-000.tar", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "one.json (manifest one)" in done.stdout
    assert "2 shards, 10 samples, 10 turns, 20 images" in done.stdout
    assert "images: png 10, gif 10; longer side 5th percentile about " in done.stdout
    assert "sources: numbers 3" in done.stdout
    assert done.stdout.count("no errors") == 2


def test_tars_given_one_by_one_are_one_set(tmp_path: Path) -> None:
    write_set(tmp_path, "one", [5, 5])
    done = check_shards("one-000.tar", "one-001.tar", cwd=tmp_path)
    assert done.stdout.count("no errors") == 1
    assert "one-00{0,1}.tar (manifest one)\n  2 shards, 10 samples" in done.stdout


def test_each_damaged_sample_has_a_line(tmp_path: Path) -> None:
    write_set(tmp_path, "one", [9, 9])
    index = read_index(index_path(tmp_path / "one-001.tar"))
    for position in (2, 5):
        flip(tmp_path / "one-001.tar", list(index.members(position))[1].offset + 7)
    done = check_shards("one-<000..001>.tar", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    for line, position in zip(lines, (2, 5), strict=False):
        key = f"{9 + position:09d}"
        assert line.startswith(f"one-001.tar: sample {key}: member {key}.png: ")
        assert " at byte " in line
    assert "2 errors" in done.stdout and "no errors" not in done.stdout


def test_missing_shards_and_an_invalid_manifest(tmp_path: Path) -> None:
    done = check_shards("absent.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: absent.json: ") and done.stderr.count("\n") == 1
    done = check_shards("x" * 300 + ".tar", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: xxx") and done.stderr.count("\n") == 1
    done = check_shards(cwd=tmp_path)
    assert done.returncode == 2
    write_set(tmp_path, "one", [1])
    (tmp_path / "one.json").write_text("{}")
    done = check_shards("one.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: one.json: ") and done.stderr.count("\n") == 1
    assert "manifest" in done.stderr


def test_compressed_shards_are_made_damaged_and_repaired(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "answer": f"answer {n} " * 20} for n in range(90)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["jsonl", "--path", tmp_path / "rows.jsonl", "--out", tmp_path, "--compress", "zstd"]
    done = make_shards(*words, "--shard-samples", 40, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "rows-000.tar.zst to rows-002.tar.zst" in done.stdout
    assert "times smaller than" in done.stdout
    before = (tmp_path / "rows-001.tar.zst").read_bytes()
    checked = check_shards(*(f"rows-00{n}.tar.zst" for n in range(3)), cwd=tmp_path)
    assert checked.stdout.count("no errors") == 1 and "3 shards, 90 samples" in checked.stdout
    flip(tmp_path / "rows-001.tar.zst", 300)
    found = check_shards("rows.json", cwd=tmp_path)
    named = [line for line in found.stdout.splitlines() if "zstd frame at byte 0" in line]
    assert found.returncode == 1 and len(named) == 40
    assert all("samples 000000040 to 000000079" in line for line in named)
    with pytest.raises(ShardError) as caught:
        open_shards(str(tmp_path / "rows.json"))[40]
    command = caught.value.remedy
    assert "--compress zstd" in command and command.endswith("--only 1")
    done = make_shards(*words, "--shard-samples", 40, "--only", 1, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rows-001.tar.zst").read_bytes() == before


def test_the_figures_of_a_check_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path, "one", [9, 9], ("PNG", "GIF"))
    write_set(tmp_path, "two", [3], ())
    specs = [str(tmp_path / name) for name in ("one.json", "two.json")]
    assert tool.main([*specs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == 0
    one, two = found["sets"]
    assert (one["shards"], one["samples"], one["turns"], one["images"]) == (2, 18, 18, 36)
    assert one["image_formats"] == {"png": 18, "gif": 18} and one["sources"] == {"numbers": 18}
    assert one["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("one-*.tar"))
    assert one["image_long_side"]["p50"] <= one["image_long_side"]["max"]
    assert two["image_long_side"] is None and two["manifest"] == "two"
    index = read_index(index_path(tmp_path / "one-001.tar"))
    flip(tmp_path / "one-001.tar", list(index.members(5))[2].offset + 7)
    assert tool.main([*specs, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == 1 and found["sets"][1]["errors"] == []
    (error,) = found["sets"][0]["errors"]
    assert Path(error["shard"]).name == "one-001.tar"
    assert (error["key"], error["member"]) == ("000000014", "000000014.1.gif")


def test_foreign_samples_that_cannot_be_used_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [("a.jpg", image("JPEG")), ("a.txt", b"a"), ("b.jpg", image("JPEG")), ("b.txt", b" ")]
    files += [("c.jpg", image("JPEG")), ("c.seg.png", image("PNG")), ("c.txt", b"")]
    write_tar(tmp_path / "x.tar", files)
    assert tool.main([str(tmp_path / "x.tar")]) == 0
    told = capsys.readouterr().out
    assert "3 samples, 1 turns, 3 images" in told
    assert "2 of them have no answer" in told and "x.tar: sample b\n" in told
    assert "other fields, not part of the samples: seg.png 1\n" in told
    assert tool.main([str(tmp_path / "x.tar"), "--json"]) == 0
    assert '"samples_without_answer": 2' in capsys.readouterr().out


def test_the_flags_of_the_cache(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [2])
    spec, folder = str(tmp_path / "x.json"), tmp_path / "cache"
    try:
        assert tool.main([spec, "--cache", str(folder), "--cache-limit", "1MB"]) == 0
        kept = fetcher().cache
        assert isinstance(kept, BlockCache)
        assert (kept.folder, kept.limit) == (str(folder), 10**6)
    finally:
        use_cache(None)
    with pytest.raises(UsageErrors) as caught:
        tool.main([spec, "--cache", str(folder), "--jsno"])
    assert "--jsno" in caught.value.messages[0] and "--cache-limit" in caught.value.messages[1]
    with pytest.raises(DiskError, match=r"x-000\.tar"):
        tool.main([spec, "--cache", str(tmp_path / "x-000.tar"), "--cache-limit", "1"])


def test_what_was_checked_from_afar_is_read_from_the_cache_next_time(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 2], ("PNG",))
    flags = ["--cache", str(tmp_path / "cache"), "--cache-limit", "1MB"]
    try:
        with FarFolder(tmp_path) as far:
            for _ in range(2):
                assert tool.main([f"{far.url}/x.json", *flags]) == 0
            assert sum(path.endswith(".tar") for path in far.paths) == 2
    finally:
        use_cache(None)
