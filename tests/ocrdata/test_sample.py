import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocrdata.errors import ImageError, RejectedRow, ShardError
from ocrdata.images.decode import decode_rgb
from ocrdata.reading.view import open_shards
from ocrdata.sample import (
    Sample,
    check,
    check_messages,
    from_turns,
    image_parts,
    split_placeholders,
    text_of,
    text_part,
)
from ocrdata.shards.members import to_sample
from tests.support.rows import image, sample, write_shard


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


def shown(**values: Any) -> str:
    """The line of a sample of two turns."""
    first = values.pop("question", "What is\n\nshown?")
    turns = [(first, "A square."), ("And?", "That is all.")]
    made = from_turns(turns, values.pop("images", []), source="charts", meta={})
    return repr(replace(made, **values))


def test_a_sample_prints_as_one_short_line() -> None:
    assert shown() == '<Sample: 0 images, 2 turns, charts: "What is shown?">'
    images = [image("PNG", 8, 6), image("JPEG", 20, 10), b"damaged"]
    assert shown(images=images[:1], key="000000017") == (
        '<Sample 000000017: 1 image (png 8 x 6), 2 turns, charts: "What is shown?">'
    )
    assert "3 images (png 8 x 6, jpg 20 x 10, unreadable)" in shown(images=images)
    assert "9 images (png 8 x 6, jpg 20 x 10, unreadable, png 8 x 6, 5 more)" in shown(
        images=images * 3
    )
    assert repr(Sample([])) == "<Sample: 0 images, 0 turns>"


@given(question=st.text(max_size=200), source=st.text(max_size=20), key=st.text(max_size=20))
def test_any_text_prints_as_one_line(question: str, source: str, key: str) -> None:
    line = shown(question=question, source=source, key=key)
    assert len(line.splitlines()) == 1 and line.isprintable()
    line.encode()
    assert len(line) < 200


def test_the_images_of_a_sample() -> None:
    own = sample(3, ("PNG", "JPEG"))
    assert np.array_equal(np.asarray(own.image()), decode_rgb(own.images[0]))
    assert own.image(1).size == own.image(-1).size == (11, 7)
    for number in (2, -3):
        with pytest.raises(IndexError, match=rf"image {number}: .*\b2\b"):
            own.image(number)
    with pytest.raises(IndexError, match=r"image 0: .* no images"):
        replace(own, images=[]).image()
    with pytest.raises(ImageError):
        replace(own, images=[b"damaged"]).image()


def test_a_sample_from_a_shard_knows_its_key(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(3), sample(4)], 3)
    shards = open_shards(str(tmp_path / "x-000.tar"))
    assert [one.key for one in shards] == [shards[0].key, shards[1].key]
    assert repr(shards[1]).startswith("<Sample 000000004: 1 image (png 12 x 6), 1 turn, numbers: ")
    assert shards[1] == sample(4)  # the key is not part of it
    assert shards[1].to_json() == sample(4).to_json()


def test_a_sample_in_a_notebook() -> None:
    page = replace(
        from_turns([("<b>?\ud800", "1 < 2 & 3")] * 5, [image("PNG")] * 5 + [b"x"], source="<i>",
                   meta={}), key="<k>"
    )._repr_html_()  # fmt: skip
    assert page.count('<img src="data:image/jpeg;base64,') == 4
    for text in ("&lt;b&gt;?", "1 &lt; 2 &amp; 3", "&lt;i&gt;", "&lt;k&gt;", "2 more messages"):
        assert text in page
    assert not any(tag in page for tag in ("<b>?", "<i>", "<k>"))
    page.encode()
    damaged = Sample([], [b"<script>"])._repr_html_()
    assert "not an image" in damaged and "<script>" not in damaged
    assert len(from_turns([("x" * 10**6, "y")], [], source="", meta={})._repr_html_()) < 5_000
