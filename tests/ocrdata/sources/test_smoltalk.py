from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import check
from ocrdata.sources.smoltalk import ChatRow, default_name
from tests.support.numbered import square

CHAT = [
    {"content": "be kind", "role": "system"},
    {"content": "a literal <image>", "role": "user"},
    {"content": "yes", "role": "assistant"},
]


def test_messages_source_and_other_columns() -> None:
    sample = ChatRow("smoltalk")({"messages": CHAT, "source": "s", "topic": "t", "none": None})
    check(sample)
    assert [message["role"] for message in sample.messages] == ["system", "user", "assistant"]
    assert sample.messages[1]["content"] == [{"type": "text", "text": "a literal <image>"}]
    assert sample.source == "s" and sample.meta == {"topic": "t"}
    assert ChatRow("smoltalk")({"messages": CHAT}).source == "smoltalk"


def test_a_row_with_images_has_placeholders_and_a_row_of_a_table_without_has_none() -> None:
    messages = [
        {"role": "user", "content": "one<image>\ntwo", "name": None},
        {"role": "assistant", "content": "yes", "weight": 0},
        {"role": "user", "content": "and?", "name": "anna"},
        {"role": "assistant", "content": "no", "weight": None},
    ]
    image = {"bytes": square("red"), "path": "a.png"}
    sample = ChatRow("x")({"messages": messages, "images": [image], "image": None})
    check(sample)
    assert sample.images == [image["bytes"]]
    assert [part["type"] for part in sample.messages[0]["content"]] == ["text", "image", "text"]
    assert [message.get("weight") for message in sample.messages] == [None, 0, None, None]
    assert sample.meta == {"image_paths": ["a.png"], "message_fields": {"2": {"name": "anna"}}}
    with pytest.raises(RejectedRow, match=r"1 .*0 images"):
        ChatRow("x")({"messages": messages, "images": None})
    with pytest.raises(RejectedRow, match=r"^image 0: .*a\.png"):
        ChatRow("x")({"messages": messages, "image_path": "a.png"})
    with pytest.raises(RejectedRow, match="video"):
        ChatRow("x")({"messages": messages, "video": b"x"})
    with pytest.raises(RejectedRow, match="tool_calls"):
        ChatRow("x")({"messages": [{**CHAT[1], "tool_calls": [{"id": "1"}]}, CHAT[2]]})


def test_content_in_parts_and_messages_as_a_struct_of_lists() -> None:
    parts = [
        {"type": "text", "text": "What?", "image": {"bytes": None, "path": None}},
        {"type": "image", "text": None, "image": {"bytes": square("red"), "path": None}},
    ]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "red", "image": None}]},
    ]
    sample = ChatRow("x")({"messages": messages})
    check(sample)
    assert sample.images == [square("red")] and sample.meta == {}
    assert sample.messages[0]["content"] == [{"type": "text", "text": "What?"}, {"type": "image"}]
    lists = {"role": ["user", "assistant"], "content": ["q", "a"]}
    assert [m["role"] for m in ChatRow("x")({"messages": lists}).messages] == lists["role"]
    with pytest.raises(RejectedRow, match=r"'messages'.*2 role, 1 content"):
        ChatRow("x")({"messages": {**lists, "content": ["q"]}})


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no turns"),
        ([None], "message 0: no role"),
        ([{"role": "user", "content": None}], "message 0: no content"),
        (CHAT[:2], "roles out of order: system user"),
        ([*CHAT, CHAT[2]], "roles out of order"),
    ],
)
def test_rejected_rows(messages: Any, reason: str) -> None:
    with pytest.raises(RejectedRow, match=f"^{reason}"):
        check(ChatRow("smoltalk")({"messages": messages}))


def test_names_contain_config_and_split() -> None:
    assert default_name(None, "train") == "smoltalk-train"
    assert default_name("all", "test") == "smoltalk-all-test"
