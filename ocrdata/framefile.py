"""The tar in a compressed shard, read by position: only the frames that are asked for are
decompressed, and those that were asked for last are kept, since neighbours follow.

It has the ways of `LocalFile`, so that who reads a tar need not know how it lies on the disk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.frames import MAX_FRAME, Decompressor, FrameTable
from ocrdata.framescan import Forward
from ocrdata.storage import LocalFile

LARGEST_HELD = MAX_FRAME
"""Content of a frame that is decompressed whole; what is larger is read forward, in pieces."""

CACHE_BYTES = 1 << 22
"""Content kept decompressed, at least the frame that was read last."""

_Key = tuple[Path, int]


class FrameCache:
    """The frames that were read last, of any number of files. Safe to share between threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.decompressor = Decompressor()
        self._frames: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._forward: tuple[_Key, Forward] | None = None
        self._one_reader = threading.Lock()

    def get(self, key: _Key) -> bytes | None:
        """A frame's content, if it is here."""
        with self._lock:
            content = self._frames.get(key)
            if content is not None:
                self._frames.move_to_end(key)
            return content

    def put(self, key: _Key, content: bytes) -> None:
        """Keep a frame's content, and let go of older ones."""
        with self._lock:
            if key not in self._frames:
                self._frames[key] = content
                self._bytes += len(content)
            while self._bytes > self.limit and len(self._frames) > 1:
                self._bytes -= len(self._frames.popitem(last=False)[1])

    def part(self, key: _Key, start: Callable[[], Forward], offset: int, size: int) -> bytes:
        """A part of a frame too large to be kept. Only one such frame is open at a time; reading
        forward costs what it is worth, each step back begins at the frame's begin."""
        with self._one_reader:
            known, forward = self._forward or (None, None)
            if known != key or forward is None or offset < forward.begin:
                forward = start()
            self._forward = None  # what fails below is not gone on with
            data = forward.part(offset, size)
            self._forward = key, forward
            return data


class FrameFile:
    """A compressed shard, as the tar it holds. `size` is the tar's. Safe to share between threads.

    `samples(start, stop)` says in words which samples lie in these bytes of the tar; it is asked
    where a frame is damaged, since all of them are lost.
    """

    def __init__(
        self,
        file: LocalFile,
        table: FrameTable,
        *,
        cache: FrameCache | None = None,
        samples: Callable[[int, int], str] = lambda _start, _stop: "",
    ) -> None:
        self.file, self.table = file, table
        self.name, self.size = file.name, table.tar_size
        self._cache = cache or FrameCache()
        self._samples = samples

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the tar at `offset`, at most MAX_FRAME at once.

        Raises ShardError; DigestError for a damaged frame, TruncatedError past the tar's end.
        """
        if size > MAX_FRAME:
            raise ShardError(
                self.name,
                f"{size:,} bytes at byte {offset:,} of its tar: of a compressed shard at most "
                f"{MAX_FRAME:,} are read at once",
                remedy="unpack it with zstd -d and use the .tar",
            )
        if offset + size > self.size:
            raise TruncatedError(
                self.name, f"its tar ends at byte {self.size:,}, byte {offset + size:,} is needed"
            )
        pieces = []
        end = offset + size
        while offset < end:
            number = self.table.at(offset)  # never one without content
            stop = min(end, self.table.contents[number + 1])
            pieces.append(self._part(number, offset, stop))
            offset = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the tar's bytes at `offset`. Raises as `read` does."""
        view[:] = self.read(offset, len(view))

    def held(self, number: int) -> bool:
        """Whether a frame is one that is decompressed whole."""
        return self.table.content(number) <= LARGEST_HELD

    def frame(self, number: int) -> bytes:
        """The content of a frame that is `held`. Raises DigestError where it is damaged."""
        key = self.file.path, number
        content = self._cache.get(key)
        if content is None:
            start, stop = self.table.starts[number], self.table.starts[number + 1]
            data = self.file.read(start, stop - start)
            with self._naming(number):
                content = self._cache.decompressor.frame(
                    self.name, data, start, self.table.content(number)
                )
            self._cache.put(key, content)
        return content

    def _part(self, number: int, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)` of the tar, which lie in one frame."""
        base = self.table.contents[number]
        if self.held(number):
            return self.frame(number)[start - base : stop - base]
        begin, end = self.table.starts[number], self.table.starts[number + 1]
        with self._naming(number):
            return self._cache.part(
                (self.file.path, number),
                lambda: Forward(self.file, begin, end),
                start - base,
                stop - start,
            )

    def _naming(self, number: int) -> _Naming:
        return _Naming(self, number)

    def lost(self, number: int) -> str:
        """The samples of a frame in words."""
        return self._samples(self.table.contents[number], self.table.contents[number + 1])


class _Naming:
    """A damaged frame's error names all its samples."""

    def __init__(self, file: FrameFile, number: int) -> None:
        self.file, self.number = file, number

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if isinstance(exc, DigestError) and (lost := self.file.lost(self.number)):
            detail = f"{exc.detail}, and with it {lost}"
            raise DigestError(exc.shard, detail, remedy=exc.remedy) from exc
