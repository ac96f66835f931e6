from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import check
from ocrdata.sources.smoltalk import ChatRow, default_name

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


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no turns"),
        ([None], "message 0: no role or no content"),
        ([{"role": "user", "content": None}], "message 0: no role or no content"),
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
