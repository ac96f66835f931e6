"""Sets made in a repository of a loopback hub: commits of many shards, the manifest alone last."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.commands.make_shards import main
from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.conversion.remote_work import work_folder
from ocrdata.errors import OcrError, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.storage import hub_commits
from ocrdata.storage.location import Location
from tests.support.hub import Hub
from tests.support.numbered import Numbered, reads
from tests.support.shardcommand import made

NAME = "org/set"
BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hub_commits, "FIRST_WAIT_S", 0.01)
    with Hub({NAME: {"README.md": b"#"}}, elsewhere=True, token="hf_secret") as found:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.url)
        hub_commits.forget_all()
        yield found


@pytest.fixture
def local(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(
        tmp_path / "local", "set", shard_samples=10, max_reject_fraction=0.2, commit_shards=2
    )


@pytest.fixture
def far(local: ConversionOptions) -> ConversionOptions:
    place = Location(f"hf://datasets/{NAME}/data")
    out = work_folder(place, local.name, str(local.out.parent / "work"))
    return replace(local, out=out, far=place)


@pytest.fixture
def source(tmp_path: Path) -> Numbered:
    return Numbered(45, BAD, log=tmp_path / "log")


def files(hub: Hub) -> dict[str, bytes]:
    found = {k: v for k, v in hub.repositories[NAME].items() if k != "README.md"}
    return {path.removeprefix("data/"): data for path, data in found.items()}


def test_the_same_bytes_by_groups_of_shards(
    hub: Hub, local: ConversionOptions, far: ConversionOptions, source: Numbered
) -> None:
    manifest = convert(source, local)
    assert convert(source, far) == manifest
    assert files(hub) == made(local.out) and not far.out.exists()
    commits = [sorted(path.removeprefix("data/") for path in one.paths) for one in hub.history]
    numbers = [[0, 1], [2, 3], [4]]
    assert commits[:3] == [
        [f"set-{n:03d}{end}" for n in group for end in (".index.parquet", ".tar")]
        for group in numbers
    ]
    assert commits[3:] == [["set.rejects.jsonl"], ["set.json"]]
    near, there = open_shards(local.place / "set.json"), open_shards(far.place / "set.json")
    assert list(there) == list(near)
    count = len(hub.history)
    assert convert(source, far) == manifest and len(hub.history) == count


@pytest.mark.parametrize("breaks_at", [17, 37])
def test_what_was_sent_is_committed_when_it_goes_on(
    hub: Hub,
    local: ConversionOptions,
    far: ConversionOptions,
    source: Numbered,
    tmp_path: Path,
    breaks_at: int,
) -> None:
    convert(source, local)
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=breaks_at), far)
    assert "set.json" not in files(hub)
    done = breaks_at // 10
    assert len(files(hub)) == done // 2 * 2 * 2
    uploads = hub.file_host.served.requests
    (tmp_path / "log").unlink()
    convert(source, far)
    assert reads(tmp_path / "log") == [(10 * done, 45)]
    assert files(hub) == made(local.out)
    assert hub.file_host.served.requests - uploads == 2 * (5 - done), "no file was sent twice"


def test_what_the_hub_no_longer_has_is_made_again(
    hub: Hub, local: ConversionOptions, far: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    convert(source, local)
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=17), far)
    hub.file_host.objects.clear()
    (tmp_path / "log").unlink()
    convert(source, far)
    assert reads(tmp_path / "log") == [(0, 45)] and files(hub) == made(local.out)


def test_small_files_wait_for_their_commit(
    hub: Hub,
    local: ConversionOptions,
    far: ConversionOptions,
    source: Numbered,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.hub.LFS_SUFFIXES", {".tar"})
    convert(source, local)
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=37), far)
    assert (far.out / ".set.making" / "set-002.index.parquet").exists()
    (tmp_path / "log").unlink()
    convert(source, far)
    assert reads(tmp_path / "log") == [(30, 45)]
    assert files(hub) == made(local.out) and not far.out.exists()


def test_a_complete_set_is_repaired(hub: Hub, far: ConversionOptions, source: Numbered) -> None:
    manifest = convert(source, far)
    whole = files(hub)
    hub_commits.commit(far.place, {}, "damage", deleted=["set-001.tar", "set-002.index.parquet"])
    assert convert(source, far) == manifest and files(hub) == whole
    hub_commits.commit(far.place, {"set-003.index.parquet": b"other"}, "damage")
    assert convert_one(source, far, 3) == manifest.shards[3] and files(hub) == whole
    with pytest.raises(OcrError, match="nothing was replaced"):
        convert_one(replace(source, bad=BAD | {12}), far, 1)
    with pytest.raises(UsageError, match=r"hf://.*shard_samples was 10, now 20"):
        convert(source, replace(far, shard_samples=20))


def test_the_command(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sums", "--limit", "25", "--shard-samples", "10", "--workers", "1", "--tokenizer",
             "bytes", "--out"]  # fmt: skip
    main([*words, str(tmp_path / "near")])
    url = "hf://datasets/org/new/sums"
    with pytest.raises(SourceError, match="org/new: no such data set"):
        main([*words, url, "--work", str(tmp_path / "work")])
    main([*words, url, "--work", str(tmp_path / "work"), "--create-repo", "--json"])
    document = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert document["manifest"] == f"{url}/sums.json"
    there = {path.removeprefix("sums/"): data for path, data in hub.repositories["org/new"].items()}
    assert there == made(tmp_path / "near")
    with pytest.raises(UsageError, match="--create-repo"):
        main([*words, "s3://bucket/x", "--create-repo"])
    with pytest.raises(UsageError, match="--create-repo"):
        main([*words, str(tmp_path / "near"), "--create-repo"])
    with pytest.raises(UsageError, match="--commit-shards 0"):
        main([*words, url, "--commit-shards", "0"])
