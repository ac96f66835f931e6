import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocrdata.errors import RejectedRow, ShardError
from ocrdata.sample import (
    check,
    check_messages,
    from_turns,
    image_parts,
    split_placeholders,
    text_of,
    text_part,
)
from ocrdata.shards.members import to_sample


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(buffer, "PNG")
    return buffer.getvalue()


def message(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text_part(p) if isinstance(p, str) else p for p in parts]}


IMAGE = {"type": "image"}
texts = st.text(min_size=1).filter(str.strip)


@given(
    turns=st.lists(st.tuples(st.text(), texts), min_size=1, max_size=4),
    source=st.text(),
    rating=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_json_round_trip(turns: list[tuple[str, str]], source: str, rating: float | None) -> None:
    sample = from_turns(turns, [b"x"], source=source, meta={"rating": rating})
    data = sample.to_json()
    read = to_sample("x-000.tar", "000000000", {"000000000.json": data, "000000000.png": b"x"})
    assert read == sample
    assert read.to_json() == data


def test_the_json_is_the_format_of_the_design() -> None:
    sample = from_turns([("What?", "Seven.")], [b"x"], source="s", meta={"r": [5, None]})
    assert json.loads(sample.to_json()) == {
        "messages": [
            {"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Seven."}]},
        ],
        "source": "s",
        "meta": {"r": [5, None]},
    }
    assert sample.turns == 1


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"messages": 3}', b"{"])
def test_other_json_is_no_sample(data: bytes) -> None:
    with pytest.raises(ShardError):
        to_sample("x-000.tar", "000000000", {"000000000.json": data})


def test_placeholders_become_parts_and_nothing_else_does() -> None:
    assert split_placeholders("<image>\nWhat?", "<image>") == [IMAGE, text_part("What?")]
    assert split_placeholders("a <image> b<image>", "<image>") == [
        text_part("a "), IMAGE, text_part(" b"), IMAGE,
    ]  # fmt: skip
    plain = from_turns([("a <image> b", "c")], [], source="", meta={})
    assert image_parts(plain.messages) == 0
    assert text_of(plain.messages[0]) == "a <image> b"
    placed = from_turns(
        [("one", "a"), ("<image> two", "b")], [b"x"], source="", meta={}, placeholder="<image>"
    )
    assert [image_parts([m]) for m in placed.messages] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no turns"),
        ([message("system", "s")], "no turns"),
        ([message("user", "a")], "roles out of order: user"),
        ([message("assistant", "a"), message("user", "b")], "roles out of order"),
        (
            [message("user", "a"), message("assistant", "b"), message("system", "c")],
            "roles out of order",
        ),
        ([message("user", "a"), message("assistant", " \n")], "message 1: no assistant text"),
        (
            [message("user", "a"), message("assistant", IMAGE, "b")],
            "assistant messages .* images",
        ),
        (
            [message("user", {"type": "text", "text": None}), message("assistant", "b")],
            "text is not a string",
        ),
        ([message("user", "\ud800"), message("assistant", "b")], "surrogate"),
        ([message("user", "a"), {**message("assistant", "b"), "weight": 0}], "weight of each is 0"),
        (
            [message("user", "a"), {**message("assistant", "b"), "weight": 0.5}],
            "message 1: weight 0.5",
        ),
    ],
)
def test_illegal_conversations(messages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(RejectedRow, match=reason):
        check_messages(messages)


def test_legal_conversations() -> None:
    check_messages([message("user", "a"), message("assistant", "b")])
    check_messages([message("system", "s"), message("user", IMAGE), message("assistant", "b")])
    turn = [message("user", "a"), message("assistant", "b")]
    check_messages([turn[0], {**turn[1], "weight": 0}, turn[0], {**turn[1], "weight": 1}])


def test_images_must_be_there_and_decode() -> None:
    check(from_turns([("a", "b")], [png()], source="", meta={}))
    with pytest.raises(RejectedRow, match=r"1 image parts .* 2 images"):
        check(
            from_turns(
                [("<image>", "b")], [png(), png()], source="", meta={}, placeholder="<image>"
            )
        )
    with pytest.raises(RejectedRow, match="image 1: "):
        check(from_turns([("a", "b")], [png(), png()[:50]], source="", meta={}))
