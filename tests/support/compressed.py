"""zstd files, as we and as other programs write them, for the tests of `.tar.zst`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zstandard
from hypothesis import strategies as st

from ocrdata.sample import Sample, from_turns
from ocrdata.shards.frames import FrameTable
from ocrdata.shards.names import make_key
from ocrdata.shards.output import DEFAULT_ZSTD, ZstdOptions
from ocrdata.shards.writer import ShardWriter


@dataclass(frozen=True)
class Piece:
    """One frame: its compressed bytes and its content."""

    raw: bytes
    content: bytes


def sized(content: bytes, *, checksum: bool = True) -> Piece:
    """A frame with the content size in its header."""
    return Piece(zstandard.ZstdCompressor(write_checksum=checksum).compress(content), content)


def streamed(content: bytes, *, checksum: bool = True) -> Piece:
    """A frame as written to a pipe: without the content size in its header."""
    writer = zstandard.ZstdCompressor(write_checksum=checksum).compressobj()
    return Piece(writer.compress(content) + writer.flush(), content)


def skippable(content: bytes, kind: int = 3) -> Piece:
    """A skippable frame, which has no content."""
    return Piece(struct.pack("<II", 0x184D2A50 + kind, len(content)) + content, b"")


def pieces(largest: int = 300) -> st.SearchStrategy[list[Piece]]:
    """Frames of all kinds, the parts of one file."""
    data = st.one_of(
        st.binary(max_size=largest),
        st.builds(bytes, st.integers(0, largest)),
        st.builds(lambda word, times: word * times, st.binary(max_size=9), st.integers(0, 30)),
    )
    one = st.one_of(
        st.builds(sized, data, checksum=st.booleans()),
        st.builds(streamed, data, checksum=st.booleans()),
        st.builds(skippable, st.binary(max_size=20), kind=st.integers(0, 15)),
    )
    return st.lists(one, min_size=1, max_size=6)


def write(path: Path, frames: Iterable[Piece]) -> FrameTable:
    """Write a file of these frames; returns its frame table."""
    frames = list(frames)
    path.write_bytes(b"".join(piece.raw for piece in frames))
    return FrameTable.of([(len(piece.raw), len(piece.content)) for piece in frames])


def chat(number: int) -> Sample:
    """A text-only sample that is unique for its number."""
    turns = [(f"What is {number}?", f"It is {number}. " * (1 + number % 7))]
    return from_turns(turns, [], source="numbers", meta={"number": number})


def write_chats(path: Path, count: int, frames: ZstdOptions = DEFAULT_ZSTD) -> Path:
    """Write a shard of `count` such samples; compressed if the name ends in .zst."""
    with ShardWriter(path, frames=frames) as writer:
        for number in range(count):
            writer.write(make_key(number), chat(number))
    return path
