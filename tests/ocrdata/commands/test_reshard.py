"""`tools/reshard.py` as it is typed: what it makes and prints, the command it records, mistakes in
one line, and a run that is killed and repeated."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from ocrdata.commands.reshard import main
from ocrdata.errors import OcrError
from ocrdata.reading.spec import resolve
from ocrdata.reading.verify import ShardStatistics, verify_shards
from ocrdata.reading.view import open_shards
from ocrdata.shards.manifest import read_manifest
from tests.support.kill import points, run_killed
from tests.support.rows import flip
from tests.support.servers.s3 import S3Server
from tests.support.sets import images_of, numbers, varied, write_samples
from tests.support.shardcommand import ROOT, environment, made

COUNT = 40


@pytest.fixture
def one(tmp_path: Path) -> str:
    return write_samples(tmp_path / "in", "one", [varied(number) for number in range(COUNT)])


def run(*words: object) -> None:
    assert main([*map(str, words), "--workers", "1"]) == 0


def test_a_filtered_split_with_what_is_said_about_it(
    one: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--where", "turns >= 2", "--split", "train=0.75,val=0.25", "--shard-samples", 8]
    run(one, "--out", out, *flags, "--dry-run")
    forecast = capsys.readouterr()
    assert not out.exists()
    run(one, "--out", out, *flags)
    printed = capsys.readouterr()
    chosen = [number for number in range(COUNT) if varied(number).turns >= 2]
    sets = {part: open_shards(f"{out}/one-{part}.json") for part in ("train", "val")}
    assert sorted(number for view in sets.values() for number in numbers(view)) == chosen
    assert not images_of(sets["train"]) & images_of(sets["val"])
    for part, view in sets.items():
        shards, reached = len(view.shard_set.shards), len(view) / len(chosen)
        for text in (forecast.out, printed.out):
            assert f"one-{part}: {len(view)} samples" in text
            assert f"{COUNT - len(chosen)} for which --where is false" in text
            assert f"{reached:.4f} of {len(chosen)} samples" in text
        assert f"{shards} shard" in forecast.out
        assert read_manifest(out / f"one-{part}.json").bytes < out_of(forecast.out, part)
        assert list(verify_shards(resolve(f"{out}/one-{part}.json"), ShardStatistics())) == []
    assert "5 shards, 40 samples" in printed.err and "nothing was written" in forecast.out


def out_of(text: str, part: str) -> float:
    """The bytes that a forecast gives a part."""
    line = next(line for line in text.splitlines() if f"one-{part}:" in line)
    number, unit = line.split("at most ")[1].split()
    return float(number) * {"KB": 1e3, "MB": 1e6}[unit]


def test_the_recorded_command_makes_the_set_again(
    one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = write_samples(tmp_path / "in", "two", [varied(number) for number in range(50, 60)])
    flags = ["--where", "meta.rating >= 2 or images > 1", "--dedupe", "images", "--seed", 7]
    more = ["--split", "a=2/3,b=1/3", "--compress", "zstd", "--shard-samples", 2]
    run(f"{one}[2:30]", f"other={two}", "--out", tmp_path / "a", "--name", "n", *flags, *more)
    command = read_manifest(tmp_path / "a" / "n-b.json").provenance["command"]
    assert str(tmp_path) not in (tmp_path / "a" / "n-b.json").read_text()
    words = shlex.split(str(command))
    assert words[:2] == ["python", "tools/reshard.py"]
    monkeypatch.chdir(tmp_path / "in")
    run(*words[2:], "--out", tmp_path / "b")
    whole = made(tmp_path / "a")
    assert made(tmp_path / "b") == {name: data for name, data in whole.items() if "n-b" in name}
    assert any(name.endswith(".tar.zst") for name in whole)
    assert any(name.endswith(".left-out.jsonl") for name in whole)
    # The command repairs a shard that is lost, as the error on a damaged one says.
    (tmp_path / "b" / "n-b-001.tar.zst").unlink()
    run(*words[2:], "--out", tmp_path / "b", "--only", 1)
    assert made(tmp_path / "b") == {name: data for name, data in whole.items() if "n-b" in name}
    capsys.readouterr()
    run(*words[2:], "--out", tmp_path / "b", "--json")
    (document,) = json.loads(capsys.readouterr().out)["sets"]
    assert document["name"] == "n-b" and document["made"]["shards"] == 0
    assert document["left_out"] == document["provenance"]["left_out"]


def test_tokens_are_counted(one: str, tmp_path: Path) -> None:
    run(one, "--out", tmp_path / "out", "--tokenizer", "bytes", "--shard-samples", 30)
    for shard in open_shards(f"{tmp_path}/out/one.json").shard_set.shards:
        assert list((tmp_path / "out").glob(f"{shard.location.name[:-4]}.tokens-*.parquet"))


def test_from_one_bucket_to_another(
    one: str, tmp_path: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    flags = ["--where", "meta.rating > 1 or turns > 1", "--dedupe", "images", "--split",
             "a=0.6,b=0.4", "--shard-samples", 7, "--tokenizer", "bytes"]  # fmt: skip
    run(one, "--out", tmp_path / "near", *flags)
    there = moto.put_folder(tmp_path / "in", "reshard/in")
    run(f"{there}/one.json", "--out", moto.url("reshard/out"), *flags)
    near = made(tmp_path / "near")
    assert moto.files("reshard/out") == near
    assert {"one-a.json", "one-b.json", "one-a.left-out.jsonl"} <= near.keys()
    told = fails(f"{there}/one.json", "--out", there)
    assert f"{there}/one.json" in told
    told = fails(f"{there}/one.json", "--out", moto.url("reshard/out"), *flags, "--seed", 1)
    assert "seed was 0, now 1" in told
    assert moto.files("reshard/out") == near


def fails(*words: object) -> str:
    """The message of a command that is refused; it is one line, or one and a remedy."""
    with pytest.raises(OcrError) as caught:
        run(*words)
    assert all("Traceback" not in message for message in caught.value.messages)
    return "\n".join(caught.value.messages)


def test_mistakes_are_told_before_anything_is_read_or_written(one: str, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    two = write_samples(tmp_path / "in", "two", [varied(number) for number in range(5)])
    told = fails(one, *out, "--where", "wdith > 1", "--split", "a=1", "--tokenizer", "no-file")
    assert len(told.splitlines()) == 3
    for words, named in (
        ([one, two, *out], "--name"),
        ([one, "--out", tmp_path / "in"], "one.json"),
        ([one, *out, "--only", 0, "--split", "a=0.5,b=0.5"], "--part"),
        ([one, *out, "--part", "a"], "--split"),
        ([one, *out, "--part", "c", "--split", "a=0.5,b=0.5"], "a, b"),
        ([one, *out, "--shard-samples", 0], "--shard-samples 0"),
        ([one, *out, "--name", "a b"], "'a b'"),
        ([f"{tmp_path}/in/onr.json", *out], "one.json"),
        ([one], "--out"),
        ([one, *out, "--dedupe", "texts"], "images"),
        ([one, *out, "--where", ""], "--where"),
        ([one, *out, "--split", ""], "--split"),
        ([one, f"other={tmp_path}/in/none.json", *out], "none.json"),
    ):
        assert named in fails(*words), words
    assert not (tmp_path / "out").exists()


def test_an_output_of_other_settings_is_kept(one: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(one, "--out", out)
    before = made(out)
    assert "dedupe" in fails(one, "--out", out, "--dedupe", "images")
    assert "shard_samples" in fails(one, "--out", out, "--shard-samples", 10)
    assert "specs" in fails(f"{one}[:5]", "--out", out)
    assert made(out) == before
    (out / "two-000.tar").write_bytes(before["one-000.tar"])
    assert "two-000.tar" in fails(one, "--out", out, "--name", "two")


def test_damage_is_named_with_the_way_around_it(one: str, tmp_path: Path) -> None:
    at = next(n for n in range(COUNT) if varied(n).images)
    flip(tmp_path / "in" / "one-000.tar", open_shards(one).row(at).members[1].offset)
    told = fails(one, "--out", tmp_path / "out")
    assert f"one-000.tar: sample {at:09d}: member {at:09d}." in told and "checksum" in told
    assert "--bad-samples skip" in told
    flags = ["--bad-samples", "skip", "--max-reject-fraction", 0.1]
    run(one, "--out", tmp_path / "out", *flags)
    assert len(open_shards(f"{tmp_path}/out/one.json")) == COUNT - 1
    for at in (5, 6, 7):
        flip(tmp_path / "in" / "one-000.tar", open_shards(one).row(at).members[0].offset)
    flags = [*flags, "--where", "meta.number > 0", "--name", "few"]
    run(one, "--out", tmp_path / "out", *flags)
    left_out = read_manifest(tmp_path / "out" / "few.json").provenance["left_out"]
    assert left_out == {"where": 1, "damaged": 3}
    flags[3] = 0.05
    told = fails(one, "--out", tmp_path / "out2", *flags)
    assert "3 of 40" in told and "one-000.tar: sample 000000005" in told
    assert not (tmp_path / "out2").exists()


def test_killed_and_repeated(tmp_path: Path) -> None:
    spec = write_samples(tmp_path / "in", "one", [varied(number) for number in range(24)])
    out, env = tmp_path / "out", environment(tmp_path)
    words = [sys.executable, str(ROOT / "tools" / "reshard.py"), spec, "--out", str(out),
             "--dedupe", "images", "--shard-samples", "5", "--workers", "1"]  # fmt: skip
    steps = points(words, out, scratch=tmp_path / "hook", env=env)
    whole = made(out)
    assert len(whole) > 8 and "one.left-out.jsonl" in whole
    shutil.rmtree(out)
    at = next(at for at, step in enumerate(steps, 1) if "rename" in step and "left-out" in step)
    run_killed(words, out, at=at, scratch=tmp_path / "hook", env=env)
    left = made(out)
    assert "one.json" not in left and ".one.left-out.jsonl.tmp" in left
    for name, data in left.items():
        assert name.startswith(".") or data == whole[name], name
    run(*words[2:-2])
    assert made(out) == whole
