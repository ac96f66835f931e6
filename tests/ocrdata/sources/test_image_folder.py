from __future__ import annotations

import csv
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocrdata.commands import make_shards as tool
from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, check, text_of
from ocrdata.sources.annotations import AnnotationFormat
from ocrdata.sources.base import NotedSource
from ocrdata.sources.image_folder import ImageFolderSource, list_files
from tests.support.numbered import square
from tests.support.rows import image


def fill(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def red(width: int) -> bytes:
    return square("red", (width, 9))


def rows(folder: Path, **form: str) -> list[Sample | RejectedRow]:
    source = ImageFolderSource(folder, AnnotationFormat(**form))
    found = list(source.rows(0, source.count()))
    assert [number for number, _ in found] == list(range(source.count()))
    for start in range(source.count()):  # any range gives the same rows
        (again,) = [result for _, result in source.rows(start, start + 1)]
        assert str(again) == str(found[start][1])
    return [_checked(result) for _, result in found]


def _checked(result: Sample | RejectedRow) -> Sample | RejectedRow:
    try:
        if isinstance(result, Sample):
            check(result)
    except RejectedRow as exc:
        return exc
    return result


def good(folder: Path, **form: str) -> list[Sample]:
    found = rows(folder, **form)
    assert not [str(one) for one in found if isinstance(one, RejectedRow)]
    return [one for one in found if isinstance(one, Sample)]


def texts(sample: Sample) -> list[str]:
    return [text_of(message) for message in sample.messages]


LINES = [
    {"file_name": "10.png", "text": "ten", "split": "x"},
    {"file_name": "deep/er/9.JPG", "text": "nine"},
]
FILES = {"10.png": red(10), "deep/er/9.JPG": image("JPEG", 9), "unlisted.png": red(3)}


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_folder_with_metadata_as_datasets_reads_it(tmp_path: Path) -> None:
    fill(tmp_path / "scans", {**FILES, "metadata.jsonl": jsonl(*LINES)})
    first, second = good(tmp_path / "scans", prompt="Read it.")
    assert texts(first) == ["Read it.", "ten"]
    assert (first.images, first.source) == ([red(10)], "scans")
    assert first.meta == {"file_name": "10.png", "split": "x"}
    assert (texts(second), second.images) == (["Read it.", "nine"], [image("JPEG", 9)])


def test_images_that_no_table_names_are_counted(tmp_path: Path) -> None:
    lines = jsonl("torn", {"text": "a"}, {"file_name": "/x.png"}, *LINES)
    fill(tmp_path, {**FILES, "also.gif": b"", "metadata.jsonl": lines})
    source = ImageFolderSource(tmp_path, AnnotationFormat())
    assert isinstance(source, NotedSource)
    assert source.notes() == ["2 images are in no table, first also.gif"]
    (tmp_path / "metadata.jsonl").write_text(
        jsonl(*LINES, {"file_names": ["./unlisted.png", "also.gif"], "text": "a"})
    )
    assert ImageFolderSource(tmp_path, AnnotationFormat()).notes() == []


@pytest.mark.parametrize("table", [False, True])
def test_splits_that_become_one_set_are_told(tmp_path: Path, table: bool) -> None:
    for split in ("train", "test"):
        texts = {"metadata.jsonl": jsonl({"file_name": "1.png", "text": "a"})} if table else {
            "1.txt": "a"
        }  # fmt: skip
        fill(tmp_path / split, {"1.png": red(5), **texts})
    (note,) = ImageFolderSource(tmp_path, AnnotationFormat()).notes()
    assert "test, train" in note and f"--path {tmp_path / 'test'}" in note
    assert ImageFolderSource(tmp_path / "test", AnnotationFormat()).notes() == []


def test_a_table_in_csv_says_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "a", {**FILES, "metadata.jsonl": jsonl(*LINES)})
    fill(tmp_path / "b", FILES)
    with (tmp_path / "b" / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "text", "split"])
        writer.writeheader()
        writer.writerows(LINES)
    one, other = good(tmp_path / "a"), good(tmp_path / "b")
    assert [(s.messages, s.images, s.meta) for s in one] == [
        (s.messages, s.images, s.meta) for s in other
    ]


def test_tables_in_subfolders_name_files_beside_them(tmp_path: Path) -> None:
    folders = ("part-2", "part-10")
    for width, name in enumerate(folders, 20):
        lines = jsonl({"file_name": "a.png", "question": f"q {name}", "answer": "a"})
        fill(tmp_path / name, {"a.png": red(width), "metadata.jsonl": lines})
    found = good(tmp_path)
    assert [texts(sample)[0] for sample in found] == ["q part-2", "q part-10"]
    assert [sample.images for sample in found] == [[red(20)], [red(21)]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "a"}, "no file_name; its fields are text"),
        ({"file_name": "none.png", "text": "a"}, r"image 0: none\.png: no such file"),
        ({"file_name": "../out.png", "text": "a"}, r"out\.png is outside"),
        ({"file_name": "/etc/passwd", "text": "a"}, "passwd is outside"),
        ({"file_name": "https://x/a.png", "text": "a"}, "is a URL"),
        ({"file_name": ["in.png", 5], "text": "a"}, "file_name is neither"),
        ({"file_name": 5, "text": "a"}, "file_name is neither"),
        ({"file_name": "in.png"}, "no answer; its fields are file_name"),
        ({"file_name": "in.png", "text": " "}, "no assistant text"),
        ({"file_name": "in.png", "text": "\ud83d"}, "lone surrogate"),
        ("torn", "not a JSON object"),
    ],
)
def test_rows_that_name_no_image_or_no_answer(tmp_path: Path, record: Any, reason: str) -> None:
    (tmp_path / "out.png").write_bytes(red(5))
    fill(tmp_path / "in", {"in.png": red(6), "metadata.jsonl": jsonl(record, LINES[0])})
    (tmp_path / "in" / "10.png").write_bytes(red(10))
    bad, fine = rows(tmp_path / "in")
    assert isinstance(fine, Sample) and isinstance(bad, RejectedRow)
    assert re.search(reason, str(bad))


def test_several_images_and_whole_conversations(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "<image> or <image>?"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "yes"},
    ]  # fmt: skip
    lines = jsonl({"file_names": ["b.png", "a.png"], "messages": messages})
    fill(tmp_path, {"a.png": red(5), "b.png": red(6), "metadata.jsonl": lines})
    (sample,) = good(tmp_path, prompt="unused")
    assert sample.images == [red(6), red(5)] and sample.turns == 2
    kinds = [part["type"] for part in sample.messages[0]["content"]]
    assert kinds == ["image", "text", "image", "text"]


CAPTIONS = {
    "2.png": red(2), "2.txt": "two", "10.JPG": image("JPEG", 10), "10.TXT": "\ufeffzehn ≠ ten",
    "sub/1.jpeg": image("JPEG", 11), "sub/1.caption": "one", ".hidden.png": red(3),
    ".git/a.png": b"", "notes.md": "not a caption",
}  # fmt: skip


def test_images_with_captions_of_the_same_name(tmp_path: Path) -> None:
    fill(tmp_path, CAPTIONS)
    found = good(tmp_path, prompt="What?")
    assert [texts(sample) for sample in found] == [
        ["What?", "two"], ["What?", "zehn ≠ ten"], ["What?", "one"],
    ]  # fmt: skip
    assert [sample.images for sample in found] == [
        [red(2)], [image("JPEG", 10)], [image("JPEG", 11)],
    ]  # fmt: skip
    assert [sample.meta["file_name"] for sample in found] == ["2.png", "10.JPG", "sub/1.jpeg"]


def test_a_folder_that_img2dataset_wrote_as_files(tmp_path: Path) -> None:
    """NNNNN/KEY.jpg, KEY.txt and KEY.json; statistics beside the folders."""
    files: dict[str, bytes | str] = {"00000_stats.json": "{}"}
    for number in range(3):
        key = f"00000/{number:09d}"
        files[f"{key}.jpg"] = image("JPEG", 30 + number)
        files[f"{key}.txt"] = f"caption {number}"
        files[f"{key}.json"] = json.dumps({"caption": f"caption {number}", "url": "u", "key": "k"})
    fill(tmp_path, files)
    found = good(tmp_path)
    assert [texts(sample) for sample in found] == [["", f"caption {n}"] for n in range(3)]
    assert found[2].meta == {
        "file_name": "00000/000000002.jpg", "caption": "caption 2", "url": "u", "key": "k",
    }  # fmt: skip
    assert found[2].images == [image("JPEG", 32)]


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "1.png": red(1), "1.txt": "one", "2.png": red(2), "3.txt": "three", "4.png": red(4),
        "4.jpg": image("JPEG"), "4.txt": "four", "5.png": red(5), "5.txt": b"\xff\xfe\x00",
        "6.png": red(6), "6.json": '{"n": 1}', "7.png": red(7), "7.json": "torn",
    }  # fmt: skip
    fill(tmp_path, files)
    fine, *bad = rows(tmp_path)
    assert isinstance(fine, Sample)
    assert [str(reason).split(";")[0] for reason in bad] == [
        "2.png: no caption of the same name",
        "3.txt: no image of the same name",
        "more than one image of the same name: 4.jpg, 4.png",
        "the caption is not valid UTF-8",
        "no answer",
        "invalid JSON: Expecting value: line 1 column 1 (char 0)",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images in it"),
        ({"a.txt": "a"}, "no images in it"),
        ({"a.png": b"x", "b.png": b"x"}, r"no texts: neither metadata\.jsonl"),
        ({"a.png": b"x", "metadata.parquet": b"x"}, r"metadata\.parquet, which is not read"),
        ({"metadata.csv": "a\n", "metadata.jsonl": ""}, r"metadata\.csv and metadata\.jsonl"),
    ],
)
def test_folders_without_rows(
    tmp_path: Path, files: Mapping[str, bytes | str], message: str
) -> None:
    fill(tmp_path, files)
    with pytest.raises(UsageError, match=message) as caught:
        ImageFolderSource(tmp_path, AnnotationFormat())
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none: no such folder"):
        ImageFolderSource(tmp_path / "none", AnnotationFormat())


def provenance(folder: Path, **form: str) -> dict[str, Any]:
    return dict(ImageFolderSource(folder, AnnotationFormat(**form)).provenance)


@pytest.mark.parametrize("table", [False, True])
def test_the_provenance_changes_with_whatever_changes_a_row(tmp_path: Path, table: bool) -> None:
    files: dict[str, bytes | str] = {**CAPTIONS}
    if table:
        files["metadata.jsonl"] = jsonl({"file_name": "2.png", "text": "two"})
    before = provenance(fill(tmp_path / "a", files))
    assert provenance(fill(tmp_path / "b", files)) == before, "not with the place of the folder"
    assert provenance(tmp_path / "a", prompt="What?") != before
    text = {"metadata.jsonl": jsonl({"file_name": "2.png", "text": "owt"})} if table else {
        "2.txt": "owt"
    }  # fmt: skip
    for number, change in enumerate([text, {"2.png": red(200)}, {"new.png": red(1)}]):
        assert provenance(fill(tmp_path / f"c{number}", {**files, **change})) != before


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "real", {"1.png": red(1), "1.txt": "one"})
    fill(tmp_path / "set", {"2.png": red(2), "2.txt": "two"})
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    assert list_files(tmp_path / "set") == ["2.png", "2.txt", "linked/1.png", "linked/1.txt"]


def test_a_caption_that_disappeared(tmp_path: Path) -> None:
    source = ImageFolderSource(fill(tmp_path, CAPTIONS), AnnotationFormat())
    (tmp_path / "2.txt").unlink()
    with pytest.raises(SourceError, match=r"2\.txt: No such file"):
        list(source.rows(0, 1))


@pytest.mark.parametrize("table", [False, True])
def test_a_worker_process_reads_the_same_rows(tmp_path: Path, table: bool) -> None:
    files = {**FILES, "metadata.jsonl": jsonl(*LINES)} if table else CAPTIONS
    source = ImageFolderSource(fill(tmp_path, files), AnnotationFormat(prompt="Read."))
    sent = pickle.loads(pickle.dumps(source))
    assert list(sent.rows(0, 2)) == list(source.rows(0, 2))
    assert sent.provenance == source.provenance
    assert sent.size(0, 2) >= sum(len(s.images[0]) for _, s in source.rows(0, 2))  # type: ignore[union-attr]


def test_the_command_makes_shards_of_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "my scans", CAPTIONS)
    words = ["imagefolder", "--path", str(tmp_path / "my scans"), "--out", str(tmp_path / "out")]
    words += ["--prompt", "Read.", "--shard-samples", "2", "--workers", "1"]
    assert tool.main(words) == 0
    shards = open_shards(str(tmp_path / "out" / "my-scans.json"))
    assert [texts(shards[number])[1] for number in range(3)] == ["two", "zehn ≠ ten", "one"]
    assert shards[1].images == [image("JPEG", 10)]
    assert str(tmp_path) not in (tmp_path / "out" / "my-scans.json").read_text()
