"""Sets made at a URL: the same bytes as on the local disk, and never more than a shard here."""

import io
import itertools
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import obstore
import pytest

from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.conversion.remote_work import RemoteWork, work_folder
from ocrdata.errors import DiskError, OcrError, SourceError, TransportError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.shards.names import beside
from ocrdata.storage.location import Location
from tests.support.far import FarFolder
from tests.support.numbered import Numbered, reads
from tests.support.servers.s3 import S3Server
from tests.support.shardcommand import made

BAD = frozenset({3, 6, 21, 24})
PREFIXES = (f"set-{number}" for number in itertools.count())


@pytest.fixture(params=["moto", "nanio"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def bucket(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """One of the two, where the server does not matter."""
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    return moto


@pytest.fixture
def local(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "local", "set", shard_samples=10, max_reject_fraction=0.2)


@pytest.fixture
def source(tmp_path: Path) -> Numbered:
    return Numbered(45, BAD, log=tmp_path / "log")


def to_url(local: ConversionOptions, url: str) -> ConversionOptions:
    place = Location.of(url)
    out = work_folder(place, local.name, str(local.out.parent / "work"))
    return replace(local, out=out, far=place)


@dataclass(frozen=True)
class Measure:
    """Writes a file beside each shard, and the bytes on the disk at that time to a log; fails at
    the shard named `fails_at`."""

    folder: Path
    log: Path
    fails_at: str = ""
    suffix: str = ".tokens-0a1b.parquet"

    def __call__(self, shards: Sequence[Path]) -> None:
        for shard in shards:
            if shard.name == self.fails_at:
                raise OcrError("stopped")
            beside(shard, self.suffix).path.write_bytes(shard.name.encode())
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            tars = [path for path in files if ".tar" in path.name]
            sizes = sum(path.stat().st_size for path in files)
            with self.log.open("a") as log:
                log.write(json.dumps([len(tars), sizes]) + "\n")


def far_files(server: S3Server, options: ConversionOptions) -> dict[str, bytes]:
    assert options.far is not None
    return server.files(options.far.text.removeprefix(server.url()))


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_a_set_at_a_url_has_the_same_bytes(
    server: S3Server, local: ConversionOptions, source: Numbered, compress: str | None
) -> None:
    local = replace(local, compress=compress)
    manifest = convert(source, local)
    far = to_url(local, server.url(next(PREFIXES)))
    assert convert(source, far) == manifest
    assert far_files(server, far) == made(local.out)
    assert not far.out.exists()
    near, there = open_shards(local.place / "set.json"), open_shards(far.place / "set.json")
    assert list(there) == list(near) and len(near) == 41


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_never_has_more_than_its_shard_on_the_disk(
    bucket: S3Server, local: ConversionOptions, tmp_path: Path, workers: int
) -> None:
    source = Numbered(60)
    measure = Measure(tmp_path / "work", tmp_path / "sizes")
    far = replace(to_url(local, bucket.url(next(PREFIXES))), workers=workers)
    convert(source, far, on_shards=measure)
    found = [json.loads(line) for line in (tmp_path / "sizes").read_text().splitlines()]
    assert len(found) == 6 and max(tars for tars, _ in found) <= workers
    files = far_files(bucket, far)
    shard = max(len(data) for name, data in files.items() if name.endswith(".tar"))
    beside_it = max(len(data) for name, data in files.items() if not name.endswith(".tar"))
    records = 6 * 1_000 + 1_000
    assert max(size for _, size in found) <= workers * (shard + 2 * beside_it) + records
    counts = [name for name in files if name.endswith(measure.suffix)]
    assert len(counts) == 6 and files[counts[0]] == b"set-000.tar"


def test_a_complete_set_is_not_made_again(
    bucket: S3Server, local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    far = to_url(local, bucket.url(next(PREFIXES)))
    manifest = convert(source, far)
    (tmp_path / "log").unlink()
    progress = Progress()
    assert convert(source, far, progress) == manifest
    assert reads(tmp_path / "log") == [] and progress.shards == 0


def test_an_interrupted_conversion_goes_on_where_it_was(
    server: S3Server, local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    convert(source, local)
    far = to_url(local, server.url(next(PREFIXES)))
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=37), far)
    assert sorted(far_files(server, far)) == [
        f"set-{n:03d}{end}" for n in range(3) for end in (".index.parquet", ".tar")
    ]
    assert not [name for name in made(far.out) if "tar" in name or "parquet" in name]
    (tmp_path / "log").unlink()
    shown = io.StringIO()
    convert(source, far, Progress(shown))
    assert reads(tmp_path / "log") == [(30, 45)] and "30 of 45" in shown.getvalue()
    assert far_files(server, far) == made(local.out)


@pytest.mark.parametrize("change", ["gone", "other", "index gone", "not recorded"])
def test_what_is_not_there_as_it_was_sent_is_made_again(
    bucket: S3Server,
    local: ConversionOptions,
    source: Numbered,
    tmp_path: Path,
    change: str,
) -> None:
    convert(source, local)
    prefix = next(PREFIXES)
    far = to_url(local, bucket.url(prefix))
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=37), far)
    store, tar = bucket.store(), f"{prefix}/set-001.tar"
    if change == "gone":
        obstore.delete(store, tar)
    elif change == "index gone":
        obstore.delete(store, f"{prefix}/set-001.index.parquet")
    elif change == "other":
        obstore.put(store, tar, bytes(len(made(local.out)["set-001.tar"])))
    else:
        (far.out / ".set.making" / "001.json").unlink()
    (tmp_path / "log").unlink()
    convert(source, far)
    assert reads(tmp_path / "log") == [(10, 20), (30, 45)]
    assert far_files(bucket, far) == made(local.out)


def test_shards_of_a_complete_set_that_are_damaged_there_are_replaced(
    bucket: S3Server, local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    prefix = next(PREFIXES)
    far = to_url(local, bucket.url(prefix))
    manifest, files = convert(source, far), far_files(bucket, far)
    obstore.put(bucket.store(), f"{prefix}/set-001.tar", b"short")
    obstore.put(bucket.store(), f"{prefix}/set-002.index.parquet", b"no index")
    obstore.delete(bucket.store(), f"{prefix}/set-003.tar")
    (tmp_path / "log").unlink()
    assert convert(source, far) == manifest
    assert reads(tmp_path / "log") == [(10, 20), (20, 30), (30, 40)]
    assert far_files(bucket, far) == files
    obstore.put(bucket.store(), f"{prefix}/set-004.tar", b"short")
    assert convert_one(source, far, 4) == manifest.shards[4]
    assert far_files(bucket, far) == files
    with pytest.raises(OcrError, match="nothing was replaced"):
        convert_one(replace(source, bad=BAD | {12}), far, 1)
    assert far_files(bucket, far) == files


def test_single_shards_become_a_set(
    bucket: S3Server, local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    manifest = convert(source, local)
    far = to_url(local, bucket.url(next(PREFIXES)))
    assert convert_one(source, far, 3) == manifest.shards[3]
    assert sorted(far_files(bucket, far)) == ["set-003.index.parquet", "set-003.tar"]
    (tmp_path / "log").unlink()
    assert convert(source, far) == manifest
    assert reads(tmp_path / "log") == [(0, 30), (40, 45)]


def test_another_conversion_at_the_same_place_is_refused(
    bucket: S3Server, local: ConversionOptions, source: Numbered
) -> None:
    far = to_url(local, bucket.url(next(PREFIXES)))
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=37), far)
    other = replace(far, shard_samples=20)
    with pytest.raises(UsageError, match=r"shard_samples was 10, now 20.*--discard"):
        convert(source, other)
    convert(source, replace(other, discard=True))
    assert sorted(name for name in far_files(bucket, far) if name.endswith(".tar")) == [
        "set-000.tar", "set-001.tar", "set-002.tar",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"s3://.*shard_samples was 20, now 10"):
        convert(source, far)


def test_counts_that_are_missing_there_are_made_and_sent(
    bucket: S3Server, local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    """Of finished shards of an unfinished set, and of a complete one without reading its source."""
    far = to_url(local, bucket.url(next(PREFIXES)))
    measure = Measure(tmp_path / "work", tmp_path / "sizes")
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=17), far)
    with pytest.raises(OcrError, match="stopped"):
        convert(source, far, on_shards=replace(measure, fails_at="set-003.tar"))
    assert sum(name.endswith(measure.suffix) for name in far_files(bucket, far)) == 3
    convert(source, far, on_shards=measure)
    assert sum(name.endswith(measure.suffix) for name in far_files(bucket, far)) == 5
    (tmp_path / "log").unlink()
    more = replace(measure, suffix=".tokens-77.parquet")
    convert(source, far, on_shards=more)
    assert reads(tmp_path / "log") == []
    assert far_files(bucket, far)["set-004.tokens-77.parquet"] == b"set-004.tar"
    assert max(json.loads(x)[0] for x in (tmp_path / "sizes").read_text().splitlines()) == 1


def test_rejects_of_an_earlier_conversion_are_deleted(
    bucket: S3Server, local: ConversionOptions
) -> None:
    prefix = next(PREFIXES)
    far = to_url(local, bucket.url(prefix))
    convert(Numbered(45, BAD), far)
    assert "set.rejects.jsonl" in far_files(bucket, far)
    obstore.delete(bucket.store(), f"{prefix}/set.json")
    convert(Numbered(45), far)
    assert "set.rejects.jsonl" not in far_files(bucket, far)


def test_only_one_process_sends_a_set(
    bucket: S3Server,
    local: ConversionOptions,
    source: Numbered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = to_url(local, bucket.url(next(PREFIXES)))
    refused = []

    def second(shards: Sequence[Path]) -> None:
        with pytest.raises(UsageError, match=r"s3://.*written by another process"):
            convert(source, far)
        refused.append(shards)

    monkeypatch.setattr(Measure, "__call__", lambda _, shards: second(shards))
    with pytest.raises(DiskError):  # nothing was written beside the shard
        convert(source, far, on_shards=Measure(far.out, far.out))
    assert len(refused) == 1


def test_a_store_that_is_not_there(
    bucket: S3Server, local: ConversionOptions, source: Numbered
) -> None:
    far = to_url(local, "s3://no-such-bucket/x")
    with pytest.raises(TransportError, match=r"s3://no-such-bucket/x/set-000\.tar: .*bucket"):
        convert(source, far)
    assert not [name for name in made(far.out) if "tar" in name]


def test_a_server_that_only_reads(
    local: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    with (
        FarFolder(tmp_path / "served") as far,
        pytest.raises(TransportError, match="does not accept files"),
    ):
        convert(source, to_url(local, far.url))


def test_the_work_folder_belongs_to_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path))
    places = ["s3://a/b", "s3://a/c", "https://a/b"]
    found = {work_folder(Location(place), name, None) for place in places for name in ("x", "y")}
    assert len(found) == 6 and {path.parent for path in found} == {tmp_path}
    assert work_folder(Location("s3://a/b"), "x", str(tmp_path / "w")).parent == tmp_path / "w"
    secret = work_folder(Location("https://a/b?key=secret"), "x", None)
    assert secret == work_folder(Location("https://a/b?key=other"), "x", None)
    with pytest.raises(UsageError):
        work_folder(Location("s3://a/b"), "x", "s3://a/work")


def test_it_goes_to_worker_processes(tmp_path: Path) -> None:
    work = RemoteWork(Location("s3://a/b"), tmp_path, "set", Measure(tmp_path, tmp_path / "log"))
    copy = pickle.loads(pickle.dumps(work))
    assert vars(copy) == vars(work)
