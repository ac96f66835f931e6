from __future__ import annotations

import gzip
import json
import os
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.commands import make_shards as tool
from ocrdata.errors import RejectedRow, ShardError, SourceError, SpecError, TruncatedError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, check, from_turns, text_of
from ocrdata.shards.manifest import read_manifest
from ocrdata.sources.annotations import AnnotationFormat
from ocrdata.sources.base import FileSource, NotedSource
from ocrdata.sources.webdataset import STRIDE, WebDatasetSource, default_name, find_tars
from tests.support import rows as support
from tests.support.numbered import square
from tests.support.rows import image, write_shard, write_tar

Files = Mapping[str, bytes | str]
JPG = image("JPEG")


def tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [(name, d if isinstance(d, bytes) else d.encode()) for name, d in files.items()]
    return write_tar(path, data)


def source_of(*paths: Path | str, **form: str) -> WebDatasetSource:
    return WebDatasetSource([str(path) for path in paths], AnnotationFormat(**form))


def rows(source: WebDatasetSource) -> list[Sample | RejectedRow]:
    found = list(source.rows(0, source.count()))
    assert [number for number, _ in found] == list(range(source.count()))
    return [result for _, result in found]


def good(*paths: Path | str, **form: str) -> list[Sample]:
    found = [row for row in rows(source_of(*paths, **form)) if isinstance(row, Sample)]
    assert len(found) == source_of(*paths).count()
    for sample in found:
        check(sample)
    return found


def texts(sample: Sample) -> list[str]:
    return [text_of(message) for message in sample.messages]


def img2dataset(folder: Path, counts: Sequence[int]) -> Path:
    """What img2dataset writes in its webdataset format: tars of KEY.jpg, KEY.json and KEY.txt, and
    statistics beside them."""
    for shard, count in enumerate(counts):
        files: dict[str, bytes | str] = {}
        for number in range(count):
            key = f"{shard:05d}{number:04d}"
            files[f"{key}.jpg"] = image("JPEG", 10 + shard, 10 + number)
            caption = f"caption {key}"
            record = {"caption": caption, "url": "u", "key": key, "width": 10 + shard, "exif": "{}"}
            files[f"{key}.json"] = json.dumps(record)
            files[f"{key}.txt"] = caption
        tar(folder / f"{shard:05d}.tar", files)
        (folder / f"{shard:05d}_stats.json").write_text("{}")
        (folder / f"{shard:05d}.parquet").write_bytes(b"")
    return folder


def test_a_folder_that_img2dataset_wrote(tmp_path: Path) -> None:
    folder = img2dataset(tmp_path / "laion", [3, 0, 2])
    samples = good(folder, prompt="Describe it.")
    assert [texts(sample) for sample in samples] == [
        ["Describe it.", f"caption {key}"]
        for key in ("000000000", "000000001", "000000002", "000020000", "000020001")
    ]
    assert samples[4].images == [image("JPEG", 12, 11)]
    assert samples[4].source == "laion" and samples[4].meta == {
        "caption": "caption 000020001", "url": "u", "key": "000020001", "width": 12, "exif": "{}",
    }  # fmt: skip
    assert source_of(folder).notes() == []


@settings(max_examples=12)
@given(st.lists(support.samples(), min_size=1, max_size=5))
def test_our_own_shards_come_back_as_they_were(samples: list[Sample]) -> None:
    samples.append(from_turns([("what is <image>?", "<image>")], [JPG], source="", meta={"a": 1}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine-000.tar"
        write_shard(path, samples)
        found = rows(source_of(path))
    for row, sample in zip(found, samples, strict=True):
        assert isinstance(row, Sample)
        assert (row.messages, row.images) == (sample.messages, sample.images)
        assert (row.meta, row.source) == (sample.meta, sample.source)


@given(
    st.lists(st.integers(0, 2 * STRIDE + 3), min_size=1, max_size=3).filter(any),
    st.integers(0, 400),
    st.integers(0, 400),
)
@settings(max_examples=15)
def test_any_range_of_rows_is_that_part_of_all(counts: list[int], start: int, stop: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(sum(counts)))
        for shard, count in enumerate(counts):
            files: dict[str, bytes | str] = {}
            for number in islice(numbers, count):
                files |= {f"{number}.jpg": JPG, f"{number}.txt": f"{number}"}
            tar(Path(folder) / f"x-{shard:03d}.tar", files)
        source = source_of(folder)
        assert source.count() == sum(counts)
        found = [
            (row, texts(sample)[1])
            for row, sample in source.rows(start, min(stop, source.count()))
            if isinstance(sample, Sample)
        ]
        assert found == [(n, str(n)) for n in range(sum(counts))][start:stop]
        assert isinstance(source, FileSource)
        names = [path.name for path in source.files(0, source.count())]
        assert names == [f"x-{shard:03d}.tar" for shard, count in enumerate(counts) if count]
        sent = pickle.loads(pickle.dumps(source))
        assert list(sent.rows(0, 5)) == list(source.rows(0, 5))


def test_captions_are_read_as_the_reader_reads_them(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar",
        {
            "a/1.JPG": JPG, "a/1.TXT": "\ufeffone", "a/1.10.png": image("PNG", 10),
            "a/1.2.png": image("PNG", 2), "2.seg.png": image("PNG", 3), "2.jpg": JPG,
            "2.caption": "two", "2.cls": "7", "3.webp": image("WEBP"), "3.txt": "three",
            "3.json": '{"n": 5, "source": "web"}', "README": "in no sample",
        },
    )  # fmt: skip
    samples, shards = good(path), open_shards(str(path))
    assert len(samples) == len(shards) == 3
    for number, sample in enumerate(samples):
        assert sample.messages == shards[number].messages
        assert sample.images == shards[number].images
    assert samples[0].images == [JPG, image("PNG", 2), image("PNG", 10)]
    assert [sample.meta for sample in samples] == [{"key": "a/1"}, {"key": "2"},
                                                   {"key": "3", "n": 5}]  # fmt: skip
    source = source_of(path)
    assert isinstance(source, NotedSource)
    assert source.notes() == ["members that are not used: 1 .seg.png, 1 .cls"]


MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
    {"role": "assistant", "content": "a"},
]


@pytest.mark.parametrize(
    ("record", "form", "expected", "meta"),
    [
        ({"question": "q", "answer": "a"}, {}, ["q", "a"], {}),
        ({"question": "q", "answers": ["a", "b"]}, {}, ["q", "a"], {"answers": ["a", "b"]}),
        ({"ocr": "a", "caption": "c"}, {"answer": "ocr"}, ["", "a"], {"caption": "c"}),
        ({"caption": "c"}, {"prompt": "Read."}, ["Read.", "c"], {}),
        ({"messages": MESSAGES, "id": 7}, {}, ["q", "a"], {"id": 7}),
        (MESSAGES, {}, ["q", "a"], {}),
        ({"conversations": [{"from": "human", "value": "<image>\nq"},
                            {"from": "gpt", "value": "a"}]}, {}, ["q", "a"], {}),
    ],
)  # fmt: skip
def test_json_beside_an_image(
    tmp_path: Path, record: Any, form: dict[str, str], expected: list[str], meta: dict[str, Any]
) -> None:
    path = tar(tmp_path / "x.tar", {"1.jpg": JPG, "1.json": json.dumps(record)})
    (sample,) = good(path, **form)
    assert (texts(sample), sample.images, sample.meta) == (expected, [JPG], {"key": "1", **meta})


def test_members_named_as_question_and_answer(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "1.input.jpg": JPG, "1.Outputs.TXT": "a", "1.ask.txt": "\ufeffq", "1.cls": "7",
    }  # fmt: skip
    path = tar(tmp_path / "x.tar", files)
    (bad,) = rows(source_of(path))
    assert "1.input.jpg, 1.Outputs.TXT" in str(bad)
    (sample,) = good(path, question="ask.txt", answer="outputs.txt")
    assert (texts(sample), sample.images, sample.meta) == (["q", "a"], [JPG], {"key": "1"})
    assert source_of(path, answer="outputs.txt").notes() == [
        "members that are not used: 1 .ask.txt, 1 .cls"
    ]
    tar(path, {**files, "1.Outputs.TXT": b"\xff"})
    (bad,) = rows(source_of(path, answer="outputs.txt"))
    assert str(bad) == "outputs.txt is not valid UTF-8"


def test_image_parts_that_name_members(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": name} for name in ("1.1.png", "1.jpg")]
    messages = [{"role": "user", "content": parts}, MESSAGES[1]]
    files = {"1.jpg": JPG, "1.1.png": square("red"), "1.json": json.dumps({"messages": messages})}
    (sample,) = good(tar(tmp_path / "x.tar", files))
    assert sample.images == [square("red"), JPG]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"1.jpg": JPG, "1.cls": "5"}, r"no \.json, \.txt or \.caption .*1\.jpg, 1\.cls"),
        ({"1.json": json.dumps({"messages": MESSAGES[:1], "meta": {}})}, "refer to 1 images"),
        ({"1.txt": "alone"}, r"among its members: 1\.txt"),
        ({"1.json": '{"n": 1}'}, "neither an image nor a question"),
        ({"1.jpg": JPG, "1.json": "torn"}, "invalid JSON"),
        ({"1.jpg": JPG, "1.json": '{"n": 1}'}, "no answer; its fields are n"),
        ({"1.jpg": JPG, "1.txt": b"\xff"}, "not valid UTF-8"),
        ({"1.jpg": JPG, "1.png": square("red"), "1.txt": "a"}, "two images have the same number"),
        ({"1.jpg": JPG, "1.json": json.dumps({"messages": [
            {"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]},
            MESSAGES[1]]})}, "passwd|in none of its image parts"),
        ({"1.json": json.dumps({"messages": [
            {"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]},
            MESSAGES[1]]})}, "'/etc/passwd' is none of its members"),
    ],
)  # fmt: skip
def test_samples_that_are_rejected(tmp_path: Path, files: Files, reason: str) -> None:
    path = tar(tmp_path / "x.tar", {**files, "2.jpg": JPG, "2.txt": "fine"})
    bad, fine = rows(source_of(path))
    assert isinstance(fine, Sample)
    with pytest.raises(RejectedRow, match=reason):
        raise bad if isinstance(bad, RejectedRow) else AssertionError(bad)


def test_how_tars_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (998, 999, 1000, 1001)
    for number in numbers:
        tar(tmp_path / "set" / f"x-{number}.tar", {"1.jpg": JPG, "1.txt": "a"})
    (tmp_path / "set" / ".x-2.tar").write_bytes(b"")
    (tmp_path / "set" / "y.txt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    every = [f"set/x-{number}.tar" for number in numbers]
    for patterns in (
        ["set"],
        ["set/x-*.tar"],
        ["set/x-{998..999}.tar", "set/x-<1000..1001>.tar"],
        ["set/x-{998,999,1000,1001}.tar"],
        ["set/x-998.tar", "set/x-{999..999}.tar", *every[2:]],
        every,
    ):
        assert [found.text for found in find_tars(patterns)] == every
        assert default_name(patterns) == "x"
    reverse = [found.text for found in find_tars(every[::-1])]
    assert reverse == every[::-1]
    os.rename(every[0], "set/00000.tar")
    assert default_name(["set/00000.tar"]) == "set"


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["none.tar"], r"none\.tar: no \.tar there"),
        (["empty"], r"empty: no \.tar there"),
        (["x-{0..2}.tar"], r"x-2\.tar: no such file"),
        (["x-0.tar", "x-{0..1}.tar"], r"x-0\.tar is given twice"),
        (["sets"], r"sets: has tars of several sets \(\(numbers\), a, b\); .*'sets/b-\*\.tar'"),
        (["x.tar.gz"], r"x\.tar\.gz: must be a plain \.tar"),
    ],
)
def test_tars_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], message: str
) -> None:
    for name in ("x-0.tar", "x-1.tar", "x.tar.gz", "sets/a-000.tar", "sets/b-000.tar",
                 "sets/00000.tar"):  # fmt: skip
        tar(tmp_path / name, {})
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=message):
        find_tars(patterns)


def test_damaged_and_changed_tars(tmp_path: Path) -> None:
    files = {"1.jpg": JPG, "1.txt": "a", "2.jpg": JPG, "2.txt": "b"}
    path = tar(tmp_path / "x.tar", files)
    whole = path.read_bytes()
    path.write_bytes(whole[:1_700])
    with pytest.raises(TruncatedError, match=r"x\.tar"):
        source_of(path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(ShardError, match=r"x\.tar: is not a tar but a gzip file; .*gunzip"):
        source_of(path)
    path.write_bytes(b"\0" * 156 + b"x" + whole[157:])
    with pytest.raises(ShardError, match="checksum mismatch in the header"):
        source_of(path)
    tar(path, {"1.jpg": JPG, "2.txt": "b", "1.txt": "a"})
    with pytest.raises(ShardError, match="not adjacent"):
        source_of(path)
    source = source_of(tar(path, files))
    os.utime(path, (1, 1))
    with pytest.raises(SourceError, match="changed since its samples were counted"):
        list(source.rows(0, 1))


def test_the_provenance_changes_with_whatever_changes_a_row(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"1.jpg": JPG, "1.txt": "a", "2.jpg": JPG, "2.txt": "b"}

    def provenance(folder: str, files: Files, name: str = "x.tar", **form: str) -> dict[str, Any]:
        return dict(source_of(tar(tmp_path / folder / name, files), **form).provenance)

    before = provenance("a", files)
    assert provenance("b", files) == before, "not with the place of the tar"
    changes: list[Files] = [
        {**files, "2.txt": "c"},
        {**files, "2.jpg": image("JPEG", 9, 7)},
        {**files, "3.jpg": JPG},
        {"2.jpg": JPG, "2.txt": "b", "1.jpg": JPG, "1.txt": "a"},
    ]
    for number, changed in enumerate(changes):
        assert provenance(f"c{number}", changed) != before
    assert provenance("d", files, "y.tar") != before
    assert provenance("e", files, prompt="Read.") != before


def test_the_command_makes_shards_of_tars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = img2dataset(tmp_path / "in", [3, 2]), tmp_path / "out"
    tar(folder / "00001.tar", {"a.jpg": JPG, "a.txt": "A", "a.mask.png": square("red")})
    words = ["webdataset", "--out", str(out), "--workers", "1", "--shard-samples", "2"]
    assert tool.main([*words, "--path", str(folder / "{00000..00001}.tar")]) == 0
    said = capsys.readouterr()
    assert "4 samples of 4 rows, 4 images, 4 turns" in said.out and "1 .mask.png" in said.err
    shards = open_shards(str(out / "in.json"))
    assert [texts(shards[n])[1] for n in range(4)] == [
        "caption 000000000", "caption 000000001", "caption 000000002", "A",
    ]  # fmt: skip
    made = read_manifest(out / "in.json").provenance["command"]
    assert made == (
        "python tools/make_shards.py webdataset --shard-samples 2 --path '{00000..00001}.tar'"
    )
    several = [str(folder / f"0000{number}.tar") for number in (0, 1)]
    assert tool.main([*words, "--path", *several]) == 0
    assert "already complete" in capsys.readouterr().out, "a shell expands unquoted braces"
