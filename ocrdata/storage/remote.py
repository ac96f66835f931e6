"""Reads objects at URLs: exact bytes of one version of an object, or an error.

A request that was cut goes on where it ended; what else can pass is tried again within bounds
(`ocrdata.storage.retries`). Each answer must be the range that was asked for, of the version (ETag)
that was asked for, also from a server that ignores `If-Match`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ocrdata.errors import MissingError, OcrError, TransportError, TruncatedError
from ocrdata.storage.location import Location
from ocrdata.storage.retries import Attempts, ShortBody, explain, is_from_client, refuses_conditions
from ocrdata.storage.stores import Target, client

WHOLE_BYTES = 1 << 20
"""Larger ranges are received in pieces of this size, so that a cut one can go on."""


class Fetched(NamedTuple):
    """Bytes of an object; the version they belong to ("" if the server names none), and the size of
    the whole object."""

    data: memoryview
    version: str
    size: int


def fetch(
    location: Location, start: int = 0, stop: int | None = None, version: str = ""
) -> Fetched:
    """Bytes `[start, stop)` of an object, or all of it. `version` is what it must be, if known.

    Raises TransportError, TruncatedError where the object ends before `stop`, and UsageError for a
    URL that cannot be read, or without the client.
    """
    return _Request(location, start, stop, version).run()


class ObjectStatus(NamedTuple):
    """The size of an object in bytes and its version."""

    size: int
    version: str


def status(location: Location) -> ObjectStatus | None:
    """The size and version of an object; None if there is none. Raises TransportError."""

    def ask() -> ObjectStatus | None:
        try:
            target = Target.of(location)
            meta = _meta(target)
        except (FileNotFoundError, MissingError):
            return None
        return ObjectStatus(meta["size"], _version_of(meta))

    return Attempts(location).run(ask)


def _meta(target: Target) -> Any:
    if target.signed is None:
        return client().head(target.store, target.path)
    try:  # a URL that is signed for GET may refuse HEAD
        return client().get(target.store, target.path, options={"range": (0, 1)}).meta
    except Exception as exc:
        if not is_from_client(exc) or explain(exc).code != 416:
            raise
        return client().head(target.store, target.path)  # it is empty, so it is on the hub itself


def names_in(folder: Location) -> list[str] | None:
    """The names of the objects in a folder; None where they cannot be listed. Readers of sets list
    nothing: a copy does, to find what no manifest names. Raises TransportError."""
    if folder.scheme != "s3":
        return None

    def ask() -> list[str]:
        target = Target.of(folder)
        found = client().list_with_delimiter(target.store, target.path)
        return sorted(entry["path"].rpartition("/")[2] for entry in found["objects"])

    return Attempts(folder).run(ask)


@dataclass
class _Request:
    """One range of one object, while it is being read."""

    location: Location
    start: int
    stop: int | None
    version: str
    size: int = -1
    pieces: list[memoryview] = field(default_factory=list)
    received: int = 0

    def run(self) -> Fetched:
        """Read it, in as many attempts as needed."""
        attempts = Attempts(self.location, 0 if self.stop is None else self.stop - self.start)
        while True:
            target = Target.of(self.location, attempts.refused)
            attempts.before(target)
            try:
                self._receive(target)
            except OcrError:
                raise
            except Exception as exc:
                if not is_from_client(exc):
                    raise
                if refuses_conditions(exc) and target.host not in _unconditional:
                    _unconditional.add(target.host)
                else:
                    attempts.after(exc, target)
            else:
                pieces = self.pieces
                data = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
                return Fetched(data, self.version, self.size)

    def _receive(self, target: Target) -> None:
        """Receive what is missing."""
        first = self.start + self.received
        options: dict[str, Any] = {}
        if self.stop is not None or self.received:
            options["range"] = (first, self.size if self.stop is None else self.stop)
        if self.version[:1] == '"' and target.host not in _unconditional:
            options["if_match"] = self.version  # not a weak one: it never matches
        result = client().get(target.store, target.path, options=options)
        self._check(result.meta)
        wanted = (self.size if self.stop is None else self.stop) - first
        if self.stop is not None and self.stop > self.size:
            raise TruncatedError(
                str(self.location),
                f"the object ends at byte {self.size:,}, but {self.stop:,} bytes are needed",
                remedy="it was truncated or replaced after its set was written; copy it again",
            )
        if wanted <= WHOLE_BYTES:
            self._add(memoryview(result.bytes()))
        else:
            for piece in result.stream(min_chunk_size=WHOLE_BYTES):
                self._add(memoryview(piece))
        if self.received != first - self.start + wanted:
            raise ShortBody(f"{self.received:,} bytes came of {first - self.start + wanted:,}")

    def _add(self, piece: memoryview) -> None:
        self.pieces.append(piece)
        self.received += len(piece)

    def _check(self, meta: Any) -> None:
        """Compare the version and size of an answer with those of the first."""
        version, size = _version_of(meta), int(meta["size"])
        if (self.version and version != self.version) or self.size not in (-1, size):
            raise changed(self.location)
        self.version, self.size = version, size


def changed(location: Location) -> TransportError:
    """The error for an object that is not the one that was read before."""
    return TransportError(
        str(location),
        "the object was replaced since it was first read",
        remedy="start again when its set is complete; what was read before is not mixed with it",
    )


def _version_of(meta: Any) -> str:
    """The ETag; without one, the time of the last change and the size."""
    etag = meta.get("e_tag")
    if etag:
        return str(etag)
    modified = meta.get("last_modified")
    if modified is None or modified == _NO_DATE:
        return ""
    return f"{modified.timestamp():.0f}-{meta['size']}"


_unconditional: set[str] = set()
"""Hosts that refuse `If-Match`: there the version that comes back is compared alone."""

_NO_DATE = datetime.fromtimestamp(0, UTC)


class RemoteFile:
    """An object at a URL: a `File`. `size` is what its set says; `version` is "" until the first
    read. Safe to share between threads."""

    def __init__(self, location: Location, size: int | None = None) -> None:
        self.location, self.name = location, str(location)
        self._version = ""
        if size is None:
            found = status(location)
            if found is None:
                raise TransportError(
                    self.name, "does not exist", remedy="check the name, or copy it there"
                )
            size, self._version = found
        self.size = size

    @property
    def version(self) -> str:
        """The ETag of what was read first."""
        return self._version

    def view(self, offset: int, size: int) -> memoryview:
        """Like `read`, without a copy."""
        if not size:
            return memoryview(b"")
        if offset + size > self.size:
            raise TruncatedError(
                self.name,
                f"the object ends at byte {self.size:,}, but {offset + size:,} bytes are needed",
            )
        found = fetch(self.location, offset, offset + size, self._version)
        if found.size != self.size:
            raise changed(self.location)
        self._version = self._version or found.version
        if found.version != self._version:  # another thread was first
            raise changed(self.location)
        return found.data

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`, in one request. Raises like `fetch`."""
        return bytes(self.view(offset, size))

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size), which are close together, in one request."""
        if not ranges:
            return []
        start = min(offset for offset, _ in ranges)
        stop = max(offset + size for offset, size in ranges)
        data = self.view(start, stop - start)
        return [bytes(data[offset - start : offset - start + size]) for offset, size in ranges]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`."""
        view[:] = self.view(offset, len(view))

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Does nothing: without a buffer there is no place to keep what comes early."""

    def unhint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Does nothing: nothing was fetched ahead."""

    def forget(self, offset: int, size: int) -> None:
        """Does nothing: bytes always come from the server."""

    def close(self) -> None:
        """Nothing is held open: the client shares its connections between objects."""
