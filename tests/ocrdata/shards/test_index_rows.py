"""Rows of an index, made of a sample's members."""

import json

import pytest

from ocrdata.shards.index_rows import UNKNOWN_IMAGE, LoadedMember, make_row
from ocrdata.shards.tar import TarMember
from tests.support.numbered import square


def members(**payloads: bytes) -> list[LoadedMember]:
    """Members `a.SUFFIX` side by side, each with one header block."""
    found, at = [], 0
    for suffix, data in payloads.items():
        member = TarMember(f"a.{suffix.replace('_', '.')}", at, at + 512, len(data), True)
        found.append(LoadedMember(member, bytes(16), data))
        at = member.end
    return found


def test_our_own_sample() -> None:
    document = {"messages": [{"role": "user"}, {"role": "assistant"}] * 2, "source": "charts"}
    row = make_row("a", members(json=json.dumps(document).encode(), png=square("red", (3, 2))))
    assert (row.turns, row.source) == (2, "charts")
    assert [tuple(image) for image in row.images] == [("png", 3, 2)]
    assert (row.offset, row.size) == (0, 4 * 512)


def test_a_foreign_caption_is_one_turn_where_there_is_an_image() -> None:
    assert make_row("a", members(png=square("red"), txt=b"a chart")).turns == 1
    assert make_row("a", members(txt=b"a chart")).turns == 0


def test_what_is_named_like_an_image_and_is_none() -> None:
    assert make_row("a", members(png=b"no image", txt=b"")).images == (UNKNOWN_IMAGE,)


@pytest.mark.parametrize("document", [b"[1]", b"{", b'{"source": "\\ud800"}', b'{"source": 3}'])
def test_a_source_that_is_none_is_left_empty(document: bytes) -> None:
    row = make_row("a", members(json=document))
    assert (row.turns, row.source) == (0, "")
