"""The work folder of a conversion whose shards are sent to a URL, each when it is complete.

The shard being made and the records of those that were sent are in a folder of this machine. A
record is written when the store has all files of the shard, and names their sizes and versions
(ETags): a shard counts as finished as long as the store says the same. Only then are the local
files deleted, so that a process never has more than one shard on the disk.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from ocrdata.conversion.work_folder import OnShards, ShardRecord, WorkFolder, parse_record
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.names import beside
from ocrdata.storage.cache import cache_folder
from ocrdata.storage.download import download
from ocrdata.storage.files import discard, explain_disk, make_folder, write_json
from ocrdata.storage.location import Location
from ocrdata.storage.remote import ObjectStatus, fetch, status
from ocrdata.storage.sealed import digest_of
from ocrdata.storage.upload import abort_pending, delete, upload

ASKED_AT_ONCE = 16
"""Requests for the status of objects at a time."""

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class RemoteWork(WorkFolder):
    """As `WorkFolder`, in a folder `out` that belongs to it alone; `place` is a URL."""

    keeps_shards = False

    def __init__(
        self, place: Location, out: Path, name: str, on_shards: OnShards | None = None
    ) -> None:
        super().__init__(out, name, on_shards)
        self.place = place

    def prepare(self) -> None:
        """Remove what killed processes left, also the parts of unfinished uploads."""
        super().prepare()
        files = re.compile(rf"{re.escape(self.name)}(-\d+)?\.[a-z0-9.-]+")
        problem = abort_pending(self.place, lambda file: bool(files.fullmatch(file)), self.name)
        if problem and self.provenance() is not None:
            _log.warning("%s", problem)

    def remove_leftovers(self) -> None:
        """Remove everything but the records: what was finished has been sent."""
        super().remove_leftovers()
        with explain_disk(self.out):
            for path in self.out.iterdir():
                if path.is_file() and path.name != f".{self.name}.lock":
                    path.unlink(missing_ok=True)

    def finish(self, shard: int, record: ShardRecord) -> None:
        """Send a shard and what belongs to it, record what the store has, and delete it here."""
        tar = self.out / record.shard.file
        if self.on_shards is not None:
            self.on_shards([tar])
        paths = self._files(tar)
        sent = {path.name: upload(self.place / path.name, path) for path in paths}
        write_json(self._record_path(shard), {**asdict(record), "sent": sent})
        for path in paths:
            discard(path)

    def _files(self, tar: Path) -> list[Path]:
        """A shard and what belongs to it."""
        files = [tar, index_path(tar).path]
        return [*files, beside(tar, self.on_shards.suffix).path] if self.on_shards else files

    def read_record(self, shard: int) -> ShardRecord | None:
        """The record of a shard; None if the store does not have what was sent, or not all that is
        to be sent now. Raises TransportError."""
        try:
            value = json.loads(self._record_path(shard).read_bytes())
            sent = {name: ObjectStatus(*found) for name, found in value.pop("sent").items()}
            record = parse_record(value)
            wanted = {path.name for path in self._files(self.out / record.shard.file)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if not wanted <= sent.keys():
            return None
        there = all(status(self.place / name) == found for name, found in sent.items())
        return record if there else None

    def read_records(self, shards: Sequence[int]) -> dict[int, ShardRecord | None]:
        """The records of several shards, as `read_record` returns them."""
        return dict(zip(shards, _at_once(self.read_record, shards), strict=True))

    def deliver(self, path: Path) -> None:
        """Send a file that was written to `out`, and delete it here; delete it there if it was
        removed."""
        if path.exists():
            upload(self.place / path.name, path)
            discard(path)
        else:
            delete(self.place / path.name)

    def replace(self, made: Path) -> None:
        """Send a shard from the work folder in place of one of the set, and delete it here."""
        if self.on_shards is not None:
            self.on_shards([made])
        for path in self._files(made):
            upload(self.place / path.name, path)
            discard(path)

    def _is_whole(self, expected: ShardInfo) -> bool:
        tar = self.place / expected.file
        found, index = status(tar), index_path(tar)
        if found is None or found.size != expected.bytes or status(index) is None:
            return False
        return digest_of(fetch(index).data) == expected.index_digest

    def broken(self, shards: Sequence[ShardInfo]) -> set[str]:
        """As that of `WorkFolder`; the digest of the index must match too."""
        whole = _at_once(self._is_whole, shards)
        return {shard.file for shard, ok in zip(shards, whole, strict=True) if not ok}

    def announce(self, files: Sequence[str]) -> None:
        """Make what `on_shards` writes for shards that were sent without it, one at a time."""
        if self.on_shards is None:
            return
        missing = _at_once(status, [beside(self.place / f, self.on_shards.suffix) for f in files])
        for file, found in zip(files, missing, strict=True):
            if found is None:
                make_folder(self.path)
                tar, index = self.path / file, index_path(self.path / file).path
                for path in (tar, index):
                    download(self.place / path.name, path)
                self.on_shards([tar])
                counts = beside(tar, self.on_shards.suffix).path
                upload(self.place / counts.name, counts)
                for path in (tar, index, counts):
                    discard(path)

    def discard_unfinished(self, shard: int, tar: Path) -> None:
        """Remove a shard that was not sent."""
        for path in self._files(tar):
            discard(path)

    def shard_files(self) -> list[str]:
        """None: nothing is listed at a URL."""
        return []

    def shards(self) -> list[int]:
        """The numbers of the shards that were sent."""
        names = (re.fullmatch(r"(\d+)\.json", path.name) for path in _files_in(self.path))
        return sorted(int(name[1]) for name in names if name)

    def has_no_shards(self) -> bool:
        """Whether a conversion was started here but has sent no shard yet."""
        return self.path.is_dir() and not self.shards()

    def discard_shards(self, shards: Sequence[int]) -> None:
        """Delete shards there and what belongs to them, the record of each last."""
        for shard in shards:
            path = self._record_path(shard)
            with suppress(OSError, ValueError, KeyError, TypeError):
                for name in json.loads(path.read_bytes())["sent"]:
                    delete(self.place / name)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder if nothing is left in it."""
        with suppress(OSError):
            self.out.rmdir()


def _files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results of a function that waits for the network, in order."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(function, items))


def work_folder(place: Location, name: str, folder: str | None) -> Path:
    """The folder of this machine in which the set `name` at a URL is made: always the same for the
    same URL, in `folder`, else in the cache. Raises UsageError."""
    made = f"sending-{digest_of(str(place / name).encode())}"
    return (Location.of(folder).path if folder else cache_folder()) / made


def open_work(
    place: Location, out: Path, name: str, on_shards: OnShards | None = None
) -> WorkFolder:
    """The work folder of the set `name` at `place`; `out` is where its shards are made."""
    if not place.scheme:
        return WorkFolder(out, name, on_shards)
    return RemoteWork(place, out, name, on_shards)
