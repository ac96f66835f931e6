"""Messages as others write them: one conversation in every dialect is the same conversation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, check_messages, image_parts, text_of
from ocrdata.sources.conversations import (
    IMAGE_FIELDS,
    OTHER_MEDIA,
    UNREAD,
    WEIGHTS,
    Conversation,
    noted_of,
    read_messages,
    record_images,
    source_name,
)

IMAGE = {"type": "image"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def answer(content: Any = "yes", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def parts(conversation: Conversation) -> list[Any]:
    return conversation.messages[0]["content"]


words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(turns=st.lists(st.tuples(words, words), min_size=1, max_size=4), system=st.none() | words)
def test_every_dialect_of_a_conversation_is_the_same(
    turns: list[tuple[str, str]], system: str | None
) -> None:
    said = [("system", system)] if system is not None else []
    for question, reply in turns:
        said += [("user", question), ("assistant", reply)]
    expected = [{"role": role, "content": [text(value)]} for role, value in said]
    sharegpt = {"user": "human", "assistant": "gpt", "system": "system"}
    dialects: list[list[dict[str, Any]]] = [
        [{"role": role, "content": value} for role, value in said],
        [{"from": sharegpt[role], "value": value} for role, value in said],
        [{"role": role, "content": [text(value)]} for role, value in said],
        [{"role": role, "content": [{"type": "text", "value": value}]} for role, value in said],
        # A Parquet struct has every field of every kind of part, most of them null.
        [{"role": role, "content": [{**text(value), "image_url": None, "index": None}],
          "name": None, "tool_calls": []} for role, value in said],
    ]  # fmt: skip
    for messages in dialects:
        assert read_messages(messages, placeholder="") == (expected, [], {})


PARTS = [
    {"type": "image", "image": "a.png"},
    {"type": "image", "image": {"path": "a.png"}},
    {"type": "image", "url": "a.png"},
    {"type": "image", "path": "a.png", "image": None},
    {"type": "image_url", "image_url": {"url": "a.png"}},
    {"type": "image_url", "image_url": "a.png"},
    {"type": "image_url", "value": "a.png"},
    {"type": "input_image", "image_url": "a.png"},
]


@pytest.mark.parametrize("part", PARTS)
def test_an_image_part_shows_the_image_that_it_names(part: dict[str, Any]) -> None:
    messages = [user([text("q"), part]), answer()]
    for images in ([], ["a.png"], ["a.png", "a.png"]):
        found = read_messages(messages, images)
        assert (parts(found), found.images) == ([text("q"), IMAGE], ["a.png"])
    with pytest.raises(RejectedRow, match=r"record is in none of its image parts: b\.png"):
        read_messages(messages, ["b.png"])


def test_images_as_bytes_as_base64_and_by_index() -> None:
    held = {"type": "image", "image": {"bytes": b"PNG", "path": "a.png"}}
    assert read_messages([user([held]), answer()]).images == [b"PNG"]
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    found = read_messages([user([{"type": "image", "source": source}]), answer()])
    assert found.images == ["data:image/png;base64,QUJD"]
    swapped = [{"type": "image", "index": 1}, {"type": "image", "index": 0, "text": None}]
    assert read_messages([user(swapped), answer()], ["a", "b"]).images == ["b", "a"]
    for index in (2, -1, "0", True):
        with pytest.raises(RejectedRow, match="message 0: an image part has index"):
            read_messages([user([{"type": "image", "index": index}]), answer()], ["a", "b"])


@pytest.mark.parametrize("form", [lambda value: value, lambda value: [text(value)]])
def test_placeholders_are_the_images_of_the_record_in_order(form: Any) -> None:
    messages = [user(form("Before <image>\nafter")), answer(), user(form("<image>?")), answer()]
    found = read_messages(messages, ["a", "b"])
    assert [m["content"] for m in found.messages[::2]] == [
        [text("Before "), IMAGE, text("after")],
        [IMAGE, text("?")],
    ]
    assert found.images == ["a", "b"]
    for images in ([], ["a"], ["a", "b", "c"]):
        with pytest.raises(
            RejectedRow, match=f"2 image parts or <image> .* {len(images)} images in the record"
        ):
            read_messages(messages, images)
    plain = read_messages(messages, placeholder="")
    assert text_of(plain.messages[0]) == "Before <image>\nafter"


def test_a_placeholder_beside_a_named_image_or_outside_of_a_question_is_rejected() -> None:
    named = {"type": "image", "image": "a"}
    with pytest.raises(RejectedRow, match="1 of 2 image parts name their image"):
        read_messages([user([named, text("<image>\nq")]), answer()], ["a"])
    with pytest.raises(RejectedRow, match="message 1: <image> in a message of the assistant"):
        read_messages([user("q"), answer("<image>")], ["a"])
    about = read_messages([user("q"), answer("write <image>")])
    assert text_of(about.messages[1]) == "write <image>"


@pytest.mark.parametrize("name", WEIGHTS)
def test_an_answer_of_weight_0_is_kept_and_marked(name: str) -> None:
    for none, full in ((0, 1), (False, True), (0.0, 1.0)):
        found = read_messages(
            [user("q"), answer(**{name: none}), user("q"), answer(**{name: full})]
        )
        assert found.messages[1] == {"role": "assistant", "content": [text("yes")], "weight": 0}
        assert found.messages[3] == {"role": "assistant", "content": [text("yes")]}
        assert found.fields == {}
    for value in (0.5, "0", [1], -1):
        with pytest.raises(RejectedRow, match=f"message 1: {name} "):
            read_messages([user("q"), answer(**{name: value})])


@pytest.mark.parametrize("name", UNREAD)
def test_a_field_that_says_something_rejects_the_row_unless_it_is_empty(name: str) -> None:
    with pytest.raises(RejectedRow, match=f"message 1: its {name} "):
        read_messages([user("q"), answer(**{name: ["x"]})])
    for empty in (None, "", [], {}):
        assert read_messages([user("q"), answer(**{name: empty})]).fields == {}


def test_other_fields_of_messages_and_parts_are_kept() -> None:
    shown = {"type": "image_url", "image_url": "a", "detail": "high"}
    messages = [
        user([{**text("q"), "cache": 1}, shown], name="anna", weight=1),
        answer(id=7, end_turn=False, value="no", **{"from": "gpt"}),
    ]
    assert read_messages(messages).fields == {
        "0": {"content[0].cache": 1, "content[1].detail": "high", "name": "anna", "weight": 1},
        "1": {"id": 7, "end_turn": False, "value": "no", "from": "gpt"},
    }


def test_what_an_object_says_beside_its_image_is_kept() -> None:
    url = {"url": "a", "path": None, "detail": "high", "note": ""}
    base64 = {"type": "base64", "media_type": "image/png", "data": "AA"}
    content = [{"type": "image_url", "image_url": url}, {"type": "image", "source": base64}]
    found = read_messages([{"role": "user", "content": content}])
    assert found.images == ["a", "data:image/png;base64,AA"]
    assert found.fields == {"0": {"content[0].image_url.detail": "high"}}


def test_what_is_told_of_a_sample() -> None:
    messages = [user("q"), answer(weight=0), user("q"), answer(weight=1)]
    fields = {"0": {"name": "anna", "content[12].cache": 1}, "1": {"name": "bert"}}
    sample = Sample(messages, meta={"message_fields": fields})
    assert Counter(noted_of(sample)) == {
        "untrained_turns": 1,
        "message_fields.name": 2,
        "message_fields.content[].cache": 1,
    }
    for other in (None, [1], "x", {"0": 3}):
        assert not list(noted_of(Sample(messages[2:], meta={"message_fields": other})))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ({"role": "user"}, "messages is not a list"),
        ([user("q"), None], "message 1: no role"),
        ([{"role": ["user"], "content": "q"}], "message 0: no role"),
        ([user("q"), {"role": "tool", "content": "x"}], "message 1: role 'tool'"),
        ([user("q"), {"from": "observation", "value": "x"}], "message 1: role 'observation'"),
        ([user({"text": "q"})], "message 0: no content"),
        ([user([{"type": "text", "text": 3}])], "message 0: a text part without text"),
        ([user([{**text("q"), "image": "a"}])], "message 0: a text part that also has an image"),
        ([user([{"type": "tool_call", "value": "x"}])], "message 0: .* but 'tool_call'"),
        ([user([{"type": {}}])], "message 0: a content part is neither text nor image"),
        ([user([{"type": "image", "blob": "a"}])], "message 0: an image part .* blob"),
        ([user([{"type": "image", "image": 3}])], "message 0: an image part .*'image'"),
        ([user([{"type": "image", "image": "a", "url": "b"}])], "message 0: .*'image', 'url'"),
        ([user([IMAGE])], "1 image parts"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_rejected_with_its_place(messages: Any, reason: str) -> None:
    with pytest.raises(RejectedRow, match=reason):
        read_messages(messages)


@pytest.mark.parametrize("name", IMAGE_FIELDS)
def test_every_name_of_an_image_field_is_read(name: str) -> None:
    for value in ("a", ["a"], {"path": "a"}, [{"bytes": None, "path": "a"}]):
        assert record_images({"images": None, "videos": [], name: value}) == ["a"]
    found = read_messages([user("<image>q"), answer()], record_images({name: ["a"]}))
    check_messages(found.messages)
    assert image_parts(found.messages) == 1
    for value in (3, [""], ["a", None], {"height": 3}):
        with pytest.raises(RejectedRow, match=f"^{name} is neither"):
            record_images({name: value})


def test_two_image_fields_must_agree() -> None:
    assert record_images({"image": "a", "images": ["a"]}) == ["a"]
    with pytest.raises(RejectedRow, match="image and img_path name different images"):
        record_images({"image": "a", "img_path": "b"})


@pytest.mark.parametrize("name", OTHER_MEDIA)
def test_videos_and_sounds_are_rejected(name: str) -> None:
    with pytest.raises(RejectedRow, match=f"the record has {name}"):
        record_images({name: "v", "image": "a"})


def test_a_source_is_a_text_or_a_whole_number() -> None:
    found = [source_name(value) for value in ("web", 7, None, True, 1.5, ["x"], {})]
    assert found == ["web", "7", "", "", "", "", ""]
