from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.sample import Sample, check, text_of
from ocrdata.sources.jsonl import JsonlSource, RecordFormat
from tests.support.hubdata import shared
from tests.support.numbered import square

RED, BLUE = square("red"), square("blue")
IMAGE = {"type": "image"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


ANSWER = {"role": "assistant", "content": "yes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    (images / "red.png").write_bytes(RED)
    (images / "blue.png").write_bytes(BLUE)
    return tmp_path


def sample_of(folder: Path, record: Any) -> Sample:
    line = record if isinstance(record, bytes) else json.dumps(record).encode()
    sample = RecordFormat(folder, "mine")(line)
    check(sample)
    return sample


@pytest.mark.parametrize(
    ("record", "content", "images"),
    [
        ({"texts": [{"user": "q", "assistant": "a"}], "image": "images/red.png"},
         [IMAGE, text("q")], [RED]),
        ({"texts": [{"user": "q", "assistant": "a"}]}, [text("q")], []),
        ({"prompt": "<image>\nq <|x|>", "answer": "a", "image": "images/red.png"},
         [IMAGE, text("q <|x|>")], [RED]),
        ({"prompt": None, "answer": "a", "image": ""}, [text("")], []),
        ({"messages": [user("q"), ANSWER], "images": ["images/red.png", "images/blue.png"]},
         [IMAGE, IMAGE, text("q")], [RED, BLUE]),
        ({"messages": [user("<image>first<image>"), ANSWER],
          "images": ["images/red.png", "images/blue.png"]},
         [IMAGE, text("first"), IMAGE], [RED, BLUE]),
        ({"messages": [user([text("Before <image>\nafter")]), ANSWER], "imgs": ["images/red.png"]},
         [text("Before "), IMAGE, text("after")], [RED]),
        ({"id": "1", "image": "images/red.png", "conversations": [
            {"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]},
         [IMAGE, text("q")], [RED]),
        ({"messages": None, "conversations": [
            {"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]}, [text("q")], []),
        ({"messages": [user([text("q"), IMAGE]), ANSWER], "image": "images/red.png"},
         [text("q"), IMAGE], [RED]),
        ({"messages": [user([{"type": "image", "image": "images/blue.png"}, text("q")]), ANSWER]},
         [IMAGE, text("q")], [BLUE]),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "images/red.png"}},
                             text("q")]), ANSWER]}, [IMAGE, text("q")], [RED]),
        ({"messages": [user([{"type": "image_url", "image_url":
            "data:image/png;base64," + base64.b64encode(RED).decode()}]), ANSWER]},
         [IMAGE], [RED]),
        ([user("bare"), ANSWER], [text("bare")], []),
    ],
)  # fmt: skip
def test_every_schema_that_is_read(
    folder: Path, record: Any, content: list[Any], images: list[bytes]
) -> None:
    sample = sample_of(folder, record)
    assert sample.messages[0]["content"] == content
    assert sample.images == images
    assert sample.source == "mine"


def test_images_go_to_the_first_question_after_a_system_message(folder: Path) -> None:
    record = {
        "messages": [{"role": "system", "content": "s"}, user("q"), ANSWER],
        "image": "images/red.png",
    }
    sample = sample_of(folder, record)
    assert sample.messages[0]["content"] == [text("s")]
    assert sample.messages[1]["content"] == [IMAGE, text("q")]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [user("q"), ANSWER]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "answer": "a"},
    ],
)
def test_a_system_prompt_beside_the_conversation(folder: Path, record: dict[str, Any]) -> None:
    sample = sample_of(folder, {**record, "system": "Be brief.", "id": 1})
    assert [message["role"] for message in sample.messages] == ["system", "user", "assistant"]
    assert sample.messages[0]["content"] == [text("Be brief.")]
    assert sample.meta == {"id": 1}
    for nothing in ("", " ", None, 7):
        sample = sample_of(folder, {**record, "system": nothing})
        assert sample.messages[0]["role"] == "user"
        assert sample.meta == {"system": nothing}


def test_a_system_message_goes_before_a_system_prompt_beside_it(folder: Path) -> None:
    messages = [{"role": "system", "content": "s"}, user("q"), ANSWER]
    sample = sample_of(folder, {"messages": messages, "system": "other"})
    assert sample.messages[0]["content"] == [text("s")]
    assert sample.meta == {"system": "other"}


def test_other_fields_are_kept_in_meta(folder: Path) -> None:
    record = {"prompt": "q", "answer": "a", "id": 7, "tags": ["x"], "source": "there"}
    sample = sample_of(folder, {**record, "image": "images/red.png"})
    assert sample.source == "there"
    assert sample.meta == {"id": 7, "tags": ["x"], "image": "images/red.png"}


def test_numbers_that_json_has_not_are_null_in_meta(folder: Path) -> None:
    line = b'{"prompt": "q", "answer": "a", "x": [NaN, -Infinity, 1e999, 1.5], "source": NaN}'
    sample = sample_of(folder, line)
    assert (sample.meta, sample.source) == ({"x": [None, None, None, 1.5]}, "mine")
    assert json.loads(sample.to_json())["meta"] == sample.meta


def test_a_source_that_is_no_text_is_its_text_or_meta(folder: Path) -> None:
    record = {"prompt": "q", "answer": "a"}
    kept = [([1], {"source": [1]}), (False, {"source": False}), ("", {}), (None, {})]
    for value, source, meta in [(7, "7", {}), *((value, "mine", meta) for value, meta in kept)]:
        sample = sample_of(folder, {**record, "source": value})
        assert (sample.source, sample.meta) == (source, meta)


def test_other_fields_of_messages_and_of_turns_are_kept_in_meta(folder: Path) -> None:
    sample = sample_of(folder, {"messages": [{**user("q"), "name": "anna"}, ANSWER], "id": 1})
    assert sample.meta == {"id": 1, "message_fields": {"0": {"name": "anna"}}}
    turns = [{"user": "q", "assistant": "a", "score": 3, "weight": 0},
             {"user": "r", "assistant": "b"}]  # fmt: skip
    sample = sample_of(folder, {"texts": turns})
    assert sample.meta == {"message_fields": {"1": {"score": 3}}}
    assert [message.get("weight") for message in sample.messages] == [None, 0, None, None]


def test_the_image_folder_may_be_the_one_in_the_names_or_its_parent(folder: Path) -> None:
    record = {"prompt": "q", "answer": "a", "image": "images/red.png"}
    assert sample_of(folder, record).images == sample_of(folder / "images", record).images == [RED]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{not json", "invalid JSON: "),
        (b"\n", "invalid JSON: "),
        (b'"\xff"', "invalid JSON: "),
        (7, "the record is not a JSON object"),
        ({}, "the record has neither messages, conversations, texts, nor prompt and answer"),
        ({"id": 1, "question": "q"}, "the record has neither messages, conversations, texts, nor "
         "prompt and answer; its fields are id, question"),
        ({"prompt": "q", "answer": None, "messages": None}, "message 1: no assistant text"),
        ({"conversations": {"from": "human"}}, "messages is not a list"),
        ({"prompt": "a literal <image>", "answer": "a"}, "1 image parts or <image> in the mess"),
        ({"prompt": "<video>q", "answer": "a", "videos": ["v.mp4"]}, "the record has videos"),
        ({"texts": [{"user": "q", "assistant": "a", "weight": 0}]}, "no answer is trained on"),
        ({"messages": 3}, "messages is not a list"),
        ({"messages": [3]}, "message 0: no role"),
        ({"messages": [{"role": "user"}]}, "message 0: no content"),
        ({"messages": [user([3])]}, "message 0: a content part is neither"),
        ({"messages": [user([{"type": "image", "image": 3}])]}, "message 0: an image part has"),
        ({"messages": [user([{"type": "audio"}])]}, "message 0: a content part is neither"),
        ({"messages": [ANSWER]}, "roles out of order"),
        ({"messages": [ANSWER], "image": "images/red.png"}, "roles out of order"),
        ({"texts": 3}, "texts is not a list of turns"),
        ({"texts": [{"user": 3, "assistant": "a"}]}, "turn 0: text is not a string"),
        ({"texts": [{"user": "q"}]}, "message 1: no assistant text"),
        ({"texts": []}, "no turns"),
        ({"prompt": "q", "answer": "a", "image": 3}, "image is neither an image nor"),
        ({"prompt": "q", "answer": "a", "images": [""]}, "images is neither an image nor"),
        ({"prompt": "q", "answer": "a", "image": "no.png"}, "image 0: no.png: no such file"),
        ({"prompt": "q", "answer": "a", "image": "images"}, "image 0: images: not a regular file"),
        ({"prompt": "q", "answer": "a", "image": "x" * 300}, f"image 0: {'x' * 80}: no such file"),
        ({"prompt": "q", "answer": "a", "image": "a\0.png"}, "image 0: 'a\\x00.png': no file can"),
        ({"prompt": "q", "answer": "a", "image": "\ud800"}, "image 0: '\\ud800': no file can"),
        ({"prompt": "q", "answer": "a", "image": "/etc/hosts"}, "image 0: /etc/hosts is outside"),
        ({"prompt": "q", "answer": "a", "image": "../x.png"}, "image 0: ../x.png is outside"),
        ({"prompt": "q", "answer": "a", "image": "http://h/x.png"}, "image 0: http://h/x.png is a"),
        ({"prompt": "q", "answer": "a", "image": "data:image/png,xx"}, "image 0: invalid data URL"),
        ({"prompt": "q", "answer": "a", "image": "data:;base64,?"}, "image 0: invalid data URL"),
        ({"prompt": "<image><image>", "answer": "a", "image": "images/red.png"},
         "2 image parts or <image> in the messages, but 1 images in the record"),
        ({"messages": [user("<image>"), ANSWER], "images": ["images/red.png"] * 2},
         "1 image parts or <image> in the messages, but 2 images in the record"),
        ({"messages": [user("<image><image>"), ANSWER], "image": "images/red.png"},
         "2 image parts or <image> in the messages, but 1 images in the record"),
        ({"messages": [user([IMAGE]), ANSWER]}, "1 image parts or <image> in the messages, but 0"),
    ],
)  # fmt: skip
def test_rejected_rows(folder: Path, record: Any, reason: str) -> None:
    with pytest.raises(RejectedRow) as caught:
        sample_of(folder, record)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_a_line_of_invalid_json_rejects_only_its_row(folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text('{"prompt": "q", "answer": "a"}\n{broken\n\n{"prompt": "r", "answer": "b"}\n')
    source = JsonlSource(path, None)
    assert (source.name, source.count()) == ("rows", 3)
    kinds = [type(result) for _, result in source.rows(0, 4)]
    assert kinds == [Sample, RejectedRow, Sample]
    assert [number for number, _ in source.rows(1, 4)] == [1, 2]
    assert source.provenance["file"] == "rows.jsonl"
    assert source.size(0, 3) > source.size(0, 2) > 2_000


def test_a_compressed_file_is_estimated_by_what_is_in_it(folder: Path) -> None:
    lines = [{"prompt": "q" * 500, "answer": str(n), "image": "red.png"} for n in range(100)]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "rows.v2.jsonl").write_bytes(text)
    (folder / "rows.v2.jsonl.gz").write_bytes(gzip.compress(text))
    plain, packed = (
        JsonlSource(folder / name, folder / "images")
        for name in ("rows.v2.jsonl", "rows.v2.jsonl.gz")
    )
    assert plain.name == packed.name == "rows-v2"
    assert packed.size(0, 100) == plain.size(0, 100) > 100 * (len(RED) + 500)
    assert packed.provenance["bytes"] < plain.provenance["bytes"]
    assert [row for _, row in packed.rows(7, 9)] == [row for _, row in plain.rows(7, 9)]


def test_a_missing_file_or_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.jsonl: no such file"):
        JsonlSource(folder / "none.jsonl", None)
    path = folder / "rows.jsonl"
    with pytest.raises(UsageError, match="is a folder; --path takes one file of JSON Lines"):
        JsonlSource(folder, None)
    for empty in ("", "\n \n", "[]"):
        path.write_text(empty)
        with pytest.raises(
            UsageError, match=rf"rows\.jsonl: has no records \({len(empty)} bytes\)"
        ):
            JsonlSource(path, None)
    with pytest.raises(UsageError, match=r"takes one file, such as rows\.jsonl"):
        JsonlSource(folder, None)
    path.write_text("{}\n")
    with pytest.raises(UsageError, match=r"nowhere: no such folder \(--images\)"):
        JsonlSource(path, folder / "nowhere")


def test_an_unreadable_image_is_an_error_and_not_a_rejected_row(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    with pytest.raises(SourceError, match=r"loop\.png: Too many levels"):
        sample_of(folder, {"prompt": "q", "answer": "a", "image": "loop.png"})


def test_images_are_part_of_the_provenance(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    record = {"texts": [{"user": "a", "assistant": "b"}], "image": "a.png"}
    file.write_text(json.dumps(record) + "\n[]\nno JSON\n")
    found = []
    for name, data in (("one", b"12"), ("same", b"21"), ("other", b"123"), ("none", b"")):
        (tmp_path / name).mkdir()
        if data:
            (tmp_path / name / "a.png").write_bytes(data)
        found.append(JsonlSource(file, tmp_path / name).provenance["images_xxh3_128"])
    assert found[0] == found[1]  # by name and size: contents are read once, when they are written
    assert len(set(found)) == 3


def test_the_ten_overfit_images() -> None:
    source = JsonlSource(shared("overfit10") / "overfit_dataset.json", None)
    samples = [result for _, result in source.rows(0, 10)]
    assert source.count() == len(samples) == 10
    for sample in samples:
        assert isinstance(sample, Sample), sample
        check(sample)
        assert sample.messages[0]["content"][0] == IMAGE
        assert "<image>" not in text_of(sample.messages[0])


def test_real_receipts_and_chats() -> None:
    docs = JsonlSource(shared("docs") / "docs.jsonl", shared("docs") / "images")
    assert all(isinstance(result, Sample) for _, result in docs.rows(0, 99))
    chats = JsonlSource(shared("chat") / "chat.jsonl", None)
    assert chats.count() == 12_000
    number, sample = next(chats.rows(11_999, 12_000))
    assert number == 11_999 and isinstance(sample, Sample)
