"""Copies a file from any place to this machine: complete, and what its set says it is, or absent.

A few pieces are asked for ahead, so that the server's answers are not waited for one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import xxhash

from ocrdata.errors import DigestError
from ocrdata.storage.file import File, open_file
from ocrdata.storage.files import atomic_file
from ocrdata.storage.location import LocationLike

PIECE_BYTES = 4 << 20
PIECES_AHEAD = 4


def download(
    location: LocationLike,
    path: Path,
    *,
    size: int | None = None,
    digest: str = "",
    report: Callable[[int], object] = lambda _: None,
) -> None:
    """Copy a file to `path`, atomically; `size` and `digest` (xxh3_128) are what it must have, if
    known. `report` gets the number of bytes of each piece.

    Raises DigestError and then leaves nothing; TransportError, TruncatedError, DiskError.
    """
    file, hasher = open_file(location, size), xxhash.xxh3_128()
    try:
        with atomic_file(path) as out:
            for piece in pieces(file):
                hasher.update(piece)
                out.write(piece)
                report(len(piece))
            check_digest(file, hasher.hexdigest(), digest)
    finally:
        file.close()


def check_digest(file: File, found: str, digest: str) -> None:
    """Raise DigestError unless a file has the digest that its set names; "" names none."""
    if digest and found != digest:
        raise DigestError(
            file.name,
            f"checksum mismatch: the whole file has {found}, its set names {digest}",
            remedy="it was modified or damaged after it was written; nothing of it was copied",
        )


def pieces(file: File) -> Iterator[bytes]:
    """The bytes of a file, in order. Raises like `File.read`."""
    with ThreadPoolExecutor(PIECES_AHEAD) as pool:
        ahead: deque[Future[bytes]] = deque()
        for start in range(0, file.size, PIECE_BYTES):
            ahead.append(pool.submit(file.read, start, min(PIECE_BYTES, file.size - start)))
            if len(ahead) > PIECES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
