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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from ocrdata.conversion.work_folder import OnShards, ShardRecord, WorkFolder, parse_record
from ocrdata.errors import MissingError
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.names import beside
from ocrdata.storage.cache import cache_folder
from ocrdata.storage.download import download
from ocrdata.storage.files import discard, explain_disk, make_folder, write_json
from ocrdata.storage.location import Location
from ocrdata.storage.remote import fetch, status
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
        sent = self._send(paths)
        write_json(self._record_path(shard), {**asdict(record), "sent": sent})
        for path in paths:
            discard(path)

    def _send(self, paths: Sequence[Path]) -> Mapping[str, Sequence[object]]:
        """Send files; returns what the store says of each, by its name."""
        return {path.name: upload(self.place / path.name, path) for path in paths}

    def _found(self, names: Sequence[str]) -> Mapping[str, Sequence[object] | None]:
        """What the store says now of files with these names."""
        found = at_once(status, [self.place / name for name in names])
        return dict(zip(names, found, strict=True))

    def _publish(self, paths: Sequence[Path]) -> None:
        """Send files that are not part of a new shard."""
        self._send(paths)

    def _remove(self, names: Sequence[str]) -> None:
        """Delete files there, if they exist."""
        for name in names:
            delete(self.place / name)

    def _files(self, tar: Path) -> list[Path]:
        """A shard and what belongs to it."""
        files = [tar, index_path(tar).path]
        return [*files, beside(tar, self.on_shards.suffix).path] if self.on_shards else files

    def _read_sent(self, shard: int) -> tuple[ShardRecord, dict[str, tuple[Any, ...]]] | None:
        """The record of a shard and what was sent; None if that is not all that is to be sent."""
        try:
            value = json.loads(self._record_path(shard).read_bytes())
            sent = {name: tuple(found) for name, found in value.pop("sent").items()}
            record = parse_record(value)
            wanted = {path.name for path in self._files(self.out / record.shard.file)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return (record, sent) if wanted <= sent.keys() else None

    def read_record(self, shard: int) -> ShardRecord | None:
        """The record of a shard; None if the store does not have what was sent, or not all that is
        to be sent now. Raises TransportError."""
        return self.read_records([shard])[shard]

    def read_records(self, shards: Sequence[int]) -> dict[int, ShardRecord | None]:
        """The records of several shards, as `read_record` returns them."""
        known = {shard: self._read_sent(shard) for shard in shards}
        found = self._found([name for one in known.values() if one for name in one[1]])
        return {
            shard: one[0] if one and are_there(one[1], found) else None
            for shard, one in known.items()
        }

    def deliver(self, path: Path) -> None:
        """Send a file that was written to `out`, and delete it here; delete it there if it was
        removed."""
        if path.exists():
            self._publish([path])
            discard(path)
        else:
            self._remove([path.name])

    def replace(self, made: Path) -> None:
        """Send a shard from the work folder in place of one of the set, and delete it here."""
        if self.on_shards is not None:
            self.on_shards([made])
        paths = self._files(made)
        self._publish(paths)
        for path in paths:
            discard(path)

    def _is_whole(self, expected: ShardInfo) -> bool:
        index = index_path(self.place / expected.file)
        try:
            return digest_of(fetch(index).data) == expected.index_digest
        except MissingError:
            return False

    def broken(self, shards: Sequence[ShardInfo]) -> set[str]:
        """As that of `WorkFolder`; the digest of the index must match too."""
        found = self._found([shard.file for shard in shards])
        sizes = {file: status[0] for file, status in found.items() if status}
        right = [shard for shard in shards if sizes.get(shard.file) == shard.bytes]
        whole = zip(right, at_once(self._is_whole, right), strict=True)
        return {shard.file for shard in shards} - {shard.file for shard, ok in whole if ok}

    def announce(self, files: Sequence[str]) -> None:
        """Make what `on_shards` writes for shards that were sent without it, one at a time."""
        if self.on_shards is None:
            return
        names = {file: beside(file, self.on_shards.suffix).name for file in files}
        found = self._found(list(names.values()))
        for file in files:
            if found.get(names[file]) is None:
                make_folder(self.path)
                tar, index = self.path / file, index_path(self.path / file).path
                for path in (tar, index):
                    download(self.place / path.name, path)
                self.on_shards([tar])
                counts = beside(tar, self.on_shards.suffix).path
                self._publish([counts])
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
                self._remove(list(json.loads(path.read_bytes())["sent"]))
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder if nothing is left in it."""
        with suppress(OSError):
            self.out.rmdir()


def are_there(
    sent: Mapping[str, Sequence[object]], found: Mapping[str, Sequence[object] | None]
) -> bool:
    """Whether the store still says of all files what it said when they were sent."""
    return all(found.get(name) == one for name, one in sent.items())


def _files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results of a function that waits for the network, in order."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(function, items))


def work_folder(place: Location, name: str, folder: str | None) -> Path:
    """The folder of this machine in which the set `name` at a URL is made: always the same for the
    same URL, in `folder`, else in the cache. Raises UsageError."""
    made = f"sending-{digest_of(str(place / name).encode())}"
    return (Location.of(folder).path if folder else cache_folder()) / made
