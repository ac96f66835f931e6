"""A text file of somebody's, plain or compressed, in any Unicode encoding -> its text as UTF-8.

gzip and zstd are recognised by their first bytes, UTF-16 and UTF-32 by theirs, whatever the name of
the file. Everything is a stream: nothing is stored, and memory holds a few buffers. Only plain
UTF-8 can be read from the middle.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import zstandard

from ocrdata.errors import ShardError, SourceError
from ocrdata.storage.files import open_regular

CHUNK_BYTES = 1 << 16
MARK = codecs.BOM_UTF8

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a skippable zstd frame; pzstd and zstd's seekable format write them."""
_OTHERS = {
    b"BZh": "compressed with bzip2; decompress it, or compress it with gzip or zstd instead",
    b"\xfd7zXZ": "compressed with xz; decompress it, or compress it with gzip or zstd instead",
    b"PK\x03\x04": "a zip archive; extract the file in it",
    b"PAR1": "a Parquet file, not JSON; `make_shards.py parquet` converts these, and the index of "
    "a shard needs no conversion",
    b"\x89PNG": "an image, not JSON",
    b"\xff\xd8\xff": "an image, not JSON",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
}

_MAX_WINDOW = 1 << 27
"""What the zstd command accepts without --long: 128 MiB."""
_ZSTD_INPUT = 1 << 11
"""Bytes decompressed at a time. Malicious ones grow 32,768 times: 64 MiB."""


class TextFile:
    """How a file is stored. `is_plain`: positions in its text are positions in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            head = file.read(64)
        for magic, what in _OTHERS.items():
            if head.startswith(magic):
                raise SourceError(f"{path}: {what}")
        self.compression = ""
        if head.startswith(_GZIP):
            self.compression = "gzip"
        elif head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
            self.compression = "zstd"
        self.encoding = "utf-8"
        with self.open() as text:
            start = text.read(64)
        # How a parser of JSON finds the encoding: by the zeros in the first four bytes.
        self.encoding = json.detect_encoding(start[:4]).removesuffix("-sig")
        if self.encoding == "utf-8" and b"\0" in start:
            at = start.index(b"\0")
            raise SourceError(f"{path}: not text: there is a zero byte at byte {at}")

    @property
    def is_plain(self) -> bool:
        """Whether the file itself is UTF-8."""
        return not self.compression and self.encoding == "utf-8"

    @contextmanager
    def open(self, seen: Callable[[bytes], object] | None = None) -> Iterator[BinaryIO]:
        """The text as UTF-8, from its start; `seen` is called with all bytes of the file itself, as
        they are read. Raises SourceError, also inside the block."""
        with opened(self.path) as file, self._explained():
            raw = file if seen is None else _stream(_reported(file, seen))
            text = raw
            if self.compression == "gzip":
                text = _stream(_chunks(gzip.GzipFile(fileobj=raw)))  # type: ignore[arg-type]  # it only reads
            elif self.compression == "zstd":
                text = _stream(_decompressed(raw))
            if self.encoding != "utf-8":
                text = _stream(_recoded(text, self.encoding))
            yield text

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as exc:
            raise SourceError(
                f"{self.path}: the {self.compression} data are corrupted or truncated: {exc}"
            ) from exc
        except UnicodeDecodeError as exc:
            raise SourceError(f"{self.path}: invalid {self.encoding.upper()}: {exc}") from exc


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; errors of opening and reading it become a SourceError."""
    try:
        with open(open_regular(path), "rb") as file:
            yield file
    except gzip.BadGzipFile:
        raise
    except OSError as exc:
        raise SourceError(f"{path}: {exc.strerror}") from exc
    except ShardError as exc:  # a folder, a pipe
        raise SourceError(str(exc)) from exc


class _Chunks(io.RawIOBase):
    """A file made of chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    # io passes a memoryview; its stub allows any buffer, and None if no data is ready.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _stream(chunks: Iterator[bytes]) -> BinaryIO:
    return io.BufferedReader(_Chunks(chunks), CHUNK_BYTES)


def _chunks(file: BinaryIO, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    while data := file.read(size):
        yield data


def _reported(file: BinaryIO, seen: Callable[[bytes], object]) -> Iterator[bytes]:
    for data in _chunks(file):
        seen(data)
        yield data


def _decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The content of zstd frames, one after the other. Raises EOFError if the last is truncated."""
    zstd = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame, started = zstd.decompressobj(), False
    for data in _chunks(file, _ZSTD_INPUT):
        while data:
            yield frame.decompress(data)
            data, started = frame.unused_data, True
            if frame.eof:
                frame, started = zstd.decompressobj(), False
    if started:
        raise EOFError("the last frame is incomplete")


def _recoded(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    for data in _chunks(file):
        yield decoder.decode(data).encode()
    yield decoder.decode(b"", final=True).encode()
