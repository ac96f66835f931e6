"""Sets copied between folders and real servers: the same bytes, verified, the manifest last."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from ocrdata.commands import copy_shards as tool
from ocrdata.commands.make_shards import main as make_shards
from ocrdata.errors import DigestError, OcrError, SpecError, TransportError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.transfer import copy as module
from tests.support.far import Asked, FarFolder, Reply
from tests.support.rows import flip
from tests.support.servers.s3 import S3Server
from tests.support.shardcommand import made

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards with token counts, and rejects."""
    folder = tmp_path_factory.mktemp("original")
    rows = [f'{{"prompt": "q{n}", "answer": "{"a" * (n != 7)}"}}\n' for n in range(25)]
    (folder / "rows.jsonl").write_text("".join(rows))
    make_shards(
        ["jsonl", "--path", str(folder / "rows.jsonl"), "--out", str(folder / "set"), "--workers",
         "1", "--shard-samples", "10", "--tokenizer", "bytes", "--max-reject-fraction", "0.1"]
    )  # fmt: skip
    assert len(made(folder / "set")) == 3 * 3 + 3
    return folder / "set"


@pytest.fixture
def bucket(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    return moto


def copy(source: object, target: object, *more: str) -> None:
    assert tool.main([str(source), str(target), *more]) == 0


def test_around_the_world(original: Path, bucket: S3Server, tmp_path: Path) -> None:
    """Folder -> folder -> bucket -> bucket -> folder, and from a server that lists nothing."""
    files = made(original)
    copy(original, tmp_path / "one")
    assert made(tmp_path / "one") == files
    prefixes = [f"copy-{next(NUMBERS)}" for _ in range(2)]
    copy(tmp_path / "one" / "rows.json", bucket.url(prefixes[0]))
    copy(bucket.url(f"{prefixes[0]}/rows.json"), bucket.url(prefixes[1]), "--workers", "2")
    assert bucket.files(prefixes[0]) == bucket.files(prefixes[1]) == files
    copy(bucket.url(f"{prefixes[1]}/rows.json"), tmp_path / "two")
    assert made(tmp_path / "two") == files
    with FarFolder(original) as far:
        copy(f"{far.url}/rows.json", tmp_path / "three", "--tokenizer", "bytes")
        copy(f"{far.url}/rows.json", tmp_path / "four")
    assert made(tmp_path / "three") == files
    assert made(tmp_path / "four") == {k: v for k, v in files.items() if ".tokens-" not in k}
    assert not list((tmp_path / "cache").glob("copying-*"))


def test_what_is_there_is_not_copied_again(
    original: Path, bucket: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"copy-{next(NUMBERS)}"
    for target in (tmp_path / "near", bucket.url(prefix)):
        copy(original, target)
        capsys.readouterr()
        copy(original, target)
        assert "already complete" in capsys.readouterr().out
    (tmp_path / "near" / "rows-001.tar").unlink()
    obstore.delete(bucket.store(), f"{prefix}/rows-001.tar")
    for target in (tmp_path / "near", bucket.url(prefix)):
        copy(original, target, "--dry-run")
        assert "to copy   1 shards" in capsys.readouterr().out
        copy(original, target)
        shown = capsys.readouterr()
        assert "copied    1 shards" in shown.out and "rows-001.tar: copied" in shown.err
    assert made(tmp_path / "near") == bucket.files(prefix) == made(original)


class Stop(OcrError):
    pass


def fails_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the copy fail at a file; returns what undoes it."""
    real, numbers = module.upload, itertools.count()

    def upload(*arguments: object) -> object:
        if next(numbers) == count:
            raise Stop("stopped")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "upload", upload)
    return lambda: monkeypatch.setattr(module, "upload", real)


@pytest.mark.parametrize("at", [0, 1, 4, 10, 11])
def test_an_interrupted_copy_goes_on(
    original: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    prefix, count = f"copy-{next(NUMBERS)}", len(made(original))
    undo = fails_after(at, monkeypatch)
    with pytest.raises(Stop):
        copy(original, bucket.url(prefix), "--workers", "1")
    undo()
    assert len(bucket.files(prefix)) == at and "rows.json" not in bucket.files(prefix)
    sent: list[str] = []
    real = module.upload
    monkeypatch.setattr(module, "upload", lambda *a: (sent.append(a[0].name), real(*a))[1])
    copy(original, bucket.url(prefix))
    assert len(sent) == count - at and sent[-1] == "rows.json"
    assert bucket.files(prefix) == made(original)


def test_a_damaged_source_is_not_copied(original: Path, bucket: S3Server, tmp_path: Path) -> None:
    copy(original, tmp_path / "damaged")
    tar = tmp_path / "damaged" / "rows-001.tar"
    flip(tar, 700)
    prefix = f"copy-{next(NUMBERS)}"
    for target in (tmp_path / "near", bucket.url(prefix)):
        with pytest.raises(DigestError, match=r"rows-001\.tar: checksum mismatch"):
            copy(tmp_path / "damaged", target, "--workers", "1")
    for found in (made(tmp_path / "near"), bucket.files(prefix)):
        assert not {"rows-001.tar", "rows.json"} & found.keys() and "rows-000.tar" in found
    bucket.put_folder(tmp_path / "damaged", prefix)
    with pytest.raises(DigestError, match=r"s3://.*rows-001\.tar: checksum mismatch"):
        copy(bucket.url(f"{prefix}/rows.json"), tmp_path / "back", "--workers", "1")
    assert "rows-001.tar" not in made(tmp_path / "back")


def test_an_index_that_is_not_the_manifests(original: Path, tmp_path: Path) -> None:
    def other(asked: Asked) -> Reply | None:
        if not asked.path.endswith("rows-002.index.parquet"):
            return None
        size = (original / "rows-002.index.parquet").stat().st_size
        return Reply(body=bytes(size))

    with (
        FarFolder(original, other) as far,
        pytest.raises(DigestError, match=r"rows-002\.index\.parquet"),
    ):
        copy(f"{far.url}/rows.json", tmp_path / "near")
    assert "rows.json" not in made(tmp_path / "near")


def test_other_sets_and_files_are_not_overwritten(
    original: Path, bucket: S3Server, tmp_path: Path
) -> None:
    prefix = f"copy-{next(NUMBERS)}"
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "rows-002.tar").write_bytes(b"other")
    obstore.put(bucket.store(), f"{prefix}/rows-002.tar", b"other")
    for target in (tmp_path / "near", bucket.url(prefix)):
        with pytest.raises(UsageError, match=r"rows-002\.tar: exists"):
            copy(original, target)
    other = ["sums", "--limit", "3", "--name", "rows", "--workers", "1", "--out"]
    second = f"copy-{next(NUMBERS)}"
    for place in (str(tmp_path / "other"), bucket.url(second)):
        make_shards([*other, place])
        with pytest.raises(UsageError, match=r"rows\.json: another set"):
            copy(original, place)


def test_what_is_no_whole_set_is_refused(original: Path, tmp_path: Path, bucket: S3Server) -> None:
    for spec, words in (
        (f"{original}/rows.json[:3]", "slice"),
        (f"{original}/rows-<000..001>.tar", "2 of 3 shards"),
        (str(tmp_path / "missing.json"), "missing.json"),
    ):
        with pytest.raises(SpecError, match=words):
            copy(spec, tmp_path / "out")
    with pytest.raises(UsageError, match="there already"):
        copy(original, f"{original}/../{original.name}")
    with pytest.raises(TransportError, match="does not exist"):
        copy(bucket.url("nothing/rows.json"), tmp_path / "out")


def test_a_set_without_a_manifest_is_copied_by_its_indexes(
    original: Path, bucket: S3Server, tmp_path: Path
) -> None:
    bare = {k: v for k, v in made(original).items() if k.startswith("rows-") and "tokens" not in k}
    (tmp_path / "bare").mkdir()
    for name, data in bare.items():
        (tmp_path / "bare" / name).write_bytes(data)
    copy(tmp_path / "bare", tmp_path / "copied")
    assert made(tmp_path / "copied") == bare
    assert list(open_shards(tmp_path / "copied")) == list(open_shards(original))
    with pytest.raises(UsageError, match="has no manifest"):
        copy(tmp_path / "bare", bucket.url(f"copy-{next(NUMBERS)}"))
    flip(tmp_path / "bare" / "rows-000.tar", 700)
    with pytest.raises(DigestError, match=r"rows-000\.tar"):
        copy(tmp_path / "bare", tmp_path / "damaged")


def test_from_url_to_url_little_is_on_the_disk(
    original: Path, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"copy-{next(NUMBERS)}"
    copy(original, bucket.url(prefix))
    sizes: list[int] = []
    real = module.upload

    def measured(*arguments: object) -> object:
        files = [path for path in (tmp_path / "work").rglob("*") if path.suffix != ".jsonl"]
        sizes.append(sum(path.stat().st_size for path in files if path.is_file()))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "upload", measured)
    copy(
        bucket.url(f"{prefix}/rows.json"), bucket.url(f"copy-{next(NUMBERS)}"),
        "--workers", "1", "--work", str(tmp_path / "work"),
    )  # fmt: skip
    assert max(sizes) == max(len(data) for data in made(original).values())
    assert os.listdir(tmp_path / "work") == []
