"""The state of an unfinished conversion, in the folder `.NAME.making/` beside its output.

`recipe.json` has the settings that decide which rows are in which shard; `000.json` has the totals
and rejected rows of shard 0. A shard is finished when its record, tar and index agree. The folder
is removed once the manifest is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import xxhash

from ocrdata.errors import ShardError, UsageError
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import ShardInfo, read_manifest, shard_info
from ocrdata.sources.base import EditableSource, FileSource, Source
from ocrdata.storage.file import exists
from ocrdata.storage.files import discard, explain_disk, fsync_folder, make_folder, write_json
from ocrdata.storage.location import Location
from ocrdata.storage.locks import remove_abandoned
from ocrdata.storage.sealed import FORMAT, VERSION, check_version, parse_object


class OnShards(Protocol):
    """Called with the paths of finished shards: before the manifest of a new set is written, or
    after the repair of a set that has one; each shard of a set at a URL before it is sent there, in
    the process that made it. Writes files beside the shards whose names end in `suffix`, such as
    '.tokens-0a1b.parquet'."""

    @property
    def suffix(self) -> str:
        """What replaces .tar in the name of a file that it writes."""

    def __call__(self, shards: Sequence[Path]) -> None:
        """Write the files that are missing beside these shards."""


@dataclass(frozen=True)
class ShardRecord:
    """Totals of one finished shard. `tar_bytes` is its uncompressed size; `rejects` are (origin
    row, reason), `damaged` (origin row, image, reason) of damaged images that were kept; `noted`
    are numbers for the manifest's totals that few sets have; `input_state` is that of the files
    that the shard was made from."""

    shard: ShardInfo
    images: int = 0
    turns: int = 0
    image_bytes: int = 0
    rejects: tuple[tuple[int, str], ...] = field(default_factory=tuple)
    tar_bytes: int = 0
    damaged: tuple[tuple[int, int, str], ...] = field(default_factory=tuple)
    noted: Mapping[str, int] = field(default_factory=dict)
    input_state: str = ""


class WorkFolder:
    """`.NAME.making/` in the output folder; only for the holder of the output's lock.

    Shards are made in `out`; finished ones are at `place`, here the same folder.
    `ocrdata.conversion.remote_work` has the one that sends them elsewhere.
    """

    keeps_shards = True
    """Whether finished shards stay on the disk of `out`."""

    def __init__(self, out: Path, name: str, on_shards: OnShards | None = None) -> None:
        self.out, self.name, self.on_shards = out, name, on_shards
        self.place = Location.of(out)
        self.path = out / f".{name}.making"
        self._recipe = self.path / "recipe.json"
        self._pattern = rf"{re.escape(name)}-(\d+)\.tar(\.zst)?"

    @property
    def manifest(self) -> Location:
        """Where the manifest of the set is once it is complete."""
        return self.place / f"{self.name}.json"

    def prepare(self) -> None:
        """Remove what killed processes left. Call it before anything else."""
        self.wait_for_orphans()
        self.remove_leftovers()

    def begin(self, provenance: Mapping[str, Any]) -> None:
        """Record the conversion's settings, durably, before the first shard."""
        make_folder(self.path)
        write_json(
            self._recipe,
            {"format": FORMAT, "version": VERSION, "kind": "recipe", "provenance": provenance},
        )

    def provenance(self) -> dict[str, Any] | None:
        """The recorded settings of an unfinished conversion, or None."""
        try:
            with explain_disk(self._recipe):
                data = self._recipe.read_bytes()
        except FileNotFoundError:
            return None
        document = parse_object(str(self._recipe), data)
        check_version(str(self._recipe), document.get("version"))
        found = document.get("provenance")
        if not isinstance(found, dict):
            raise ShardError(
                str(self._recipe), "not the settings of a conversion; delete the folder it is in"
            )
        return found

    def _record_path(self, shard: int) -> Path:
        return self.path / f"{shard:03d}.json"

    def write_record(self, shard: int, record: ShardRecord) -> None:
        """Record a finished shard, durably; its tar and index must be complete."""
        write_json(self._record_path(shard), asdict(record))

    def read_record(self, shard: int) -> ShardRecord | None:
        """The record of a shard; None if it is not finished or its files do not match."""
        try:
            value = json.loads(self._record_path(shard).read_bytes())
            record = parse_record(value)
            found = shard_info(self.out / record.shard.file)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, ShardError):
            return None
        return record if found == record.shard else None

    def read_records(self, shards: Sequence[int]) -> dict[int, ShardRecord | None]:
        """The records of several shards, as `read_record` returns them."""
        return {shard: self.read_record(shard) for shard in shards}

    def finish(self, shard: int, record: ShardRecord) -> None:
        """Deliver a shard whose tar and index are complete in `out`, and record it."""
        self.write_record(shard, record)

    def shard_done(self, file: str) -> None:
        """Called in the main process for each shard that was finished."""

    def deliver(self, path: Path) -> None:
        """Deliver a file of the set that was written to `out`, or removed there."""

    def replace(self, made: Path) -> None:
        """Deliver a shard from the work folder, in place of one of the set."""
        final = self.out / made.name
        with explain_disk(self.out):
            index_path(final).path.unlink(missing_ok=True)
            made.rename(final)
            index_path(made).path.rename(index_path(final))
            fsync_folder(self.out)

    def broken(self, shards: Sequence[ShardInfo]) -> set[str]:
        """The files of a manifest's shards that are missing, or whose size or index does not match.
        Payloads are not read."""
        return {shard.file for shard in shards if not self._is_whole(shard)}

    def _is_whole(self, expected: ShardInfo) -> bool:
        try:
            found = shard_info(self.out / expected.file)
        except ShardError:
            return False
        # An index recreated by another version of the Parquet library has other bytes.
        return replace(found, index_digest=expected.index_digest) == expected

    def announce(self, files: Sequence[str]) -> None:
        """Call `on_shards` for finished shards that have not passed there."""
        if self.on_shards is not None:
            self.on_shards([self.out / file for file in files])

    def discard_unfinished(self, shard: int, tar: Path) -> None:
        """Remove the tar of a shard whose index or record could not be written."""
        if self.read_record(shard) is None:
            discard(tar)
            discard(index_path(tar).path)

    def wait_for_orphans(self) -> None:
        """Wait until the workers of a killed conversion have exited (they do so on their own)."""
        if self.path.is_dir():
            with explain_disk(self.path):
                handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                finally:
                    os.close(handle)

    def hold(self) -> int:
        """Mark this process as a worker until it exits; see `wait_for_orphans`.

        Raises DiskError.
        """
        with explain_disk(self.path):
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_SH)
        return handle

    def remove_leftovers(self) -> None:
        """Remove the incomplete files of killed processes."""
        with explain_disk(self.out):
            name = re.escape(self.name)
            shard = rf"{name}-\d+\.(tar|tar\.zst|index\.parquet)"
            _unlink(self.out, rf"\.({shard}|{name}\.json|{name}\.[a-z-]+\.jsonl)\.tmp")
            counts = rf"\.({name}(-\d+)?\.tokens-[0-9a-f]+\.(parquet|json))\.lock"
            for match in _matching(self.out, counts):
                remove_abandoned(self.out / match[1])
            _unlink(self.path, rf"\.({shard}|recipe\.json|\d+\.json)\.tmp")

    def recorded_provenance(self) -> dict[str, Any] | None:
        """The settings that the shards of this name were made with, or None without any.

        Raises UsageError if there are shards but no record of how they were made.
        """
        if exists(self.manifest):
            manifest = read_manifest(self.manifest)
            return {**manifest.provenance, "licence": manifest.licence}
        found = self.provenance()
        unknown = [] if found is not None else self.shard_files()
        if unknown:
            raise UsageError(
                f"{self.out / unknown[0]} exists, but neither a manifest nor an unfinished "
                "conversion records how it was made; remove such shards, or choose another --name"
            )
        return found

    def shard_files(self) -> list[str]:
        """The names of the shards of this name that exist, finished or not."""
        return [match[0] for match in _matching(self.out, self._pattern)]

    def shards(self) -> list[int]:
        """Their numbers."""
        return sorted({int(match[1]) for match in _matching(self.out, self._pattern)})

    def has_no_shards(self) -> bool:
        """Whether a conversion was started here but has no shard or manifest yet."""
        return self.path.is_dir() and not self.shards() and not exists(self.manifest)

    def discard_shards(self, shards: Sequence[int]) -> None:
        """Remove shards and what is beside them, the record of each first: without it a shard does
        not count as finished."""
        name = re.escape(self.name)
        for shard in shards:
            with explain_disk(self.out):
                self._record_path(shard).unlink(missing_ok=True)
                kinds = r"tar|tar\.zst|index\.parquet|tokens-[0-9a-f]+\.parquet"
                _unlink(self.out, rf"{name}-0*{shard}\.({kinds})")

    def close(self) -> None:
        """Called when the lock of the output has been released."""

    def remove(self) -> None:
        """Remove the folder; the settings last, so that a partly removed one is still valid."""
        if self.path.is_dir():
            with explain_disk(self.path):
                for path in sorted(self.path.iterdir(), key=lambda path: path == self._recipe):
                    path.unlink()
                shutil.rmtree(self.path)


def parse_record(value: dict[str, Any]) -> ShardRecord:
    """A record as it was written. Raises ValueError, TypeError, KeyError."""
    return ShardRecord(
        **{
            **value,
            "shard": ShardInfo(**value["shard"]),
            "rejects": tuple((row, reason) for row, reason in value["rejects"]),
            # Without this field, an older version made the shard and looked for no damage.
            "damaged": tuple((row, n, reason) for row, n, reason in value["damaged"]),
        }
    )


def _unlink(folder: Path, pattern: str) -> None:
    for match in _matching(folder, pattern):
        (folder / match[0]).unlink(missing_ok=True)


def _matching(folder: Path, pattern: str) -> list[re.Match[str]]:
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [match for name in names if (match := re.fullmatch(pattern, name))]


def input_state(source: Source, rows: range) -> str:
    """A digest of the sizes and times of the files that these rows are read from; "" for a source
    without such files. It is kept in the work folder only."""
    if not isinstance(source, FileSource):
        return ""
    digest = xxhash.xxh3_128()
    for file in source.files(rows.start, rows.stop):
        try:
            found = file.stat()
        except (OSError, ValueError):
            digest.update(b"missing\n")
        else:  # the change time too: a copy may keep the time of modification
            times = found.st_size, found.st_mtime_ns, found.st_ctime_ns
            digest.update(f"{times}\n".encode())
    return digest.hexdigest()


NOT_COMPARED = ("command", "licence")


def only_input_changed(old: Mapping[str, Any], new: Mapping[str, Any], source: Source) -> bool:
    """Whether two provenances differ because the input of a source was edited, and for no other
    reason. Their rows may be the same."""
    if not isinstance(source, EditableSource):
        return False
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    edited = changed & set(source.content)
    return bool(edited) and changed <= edited | {"rows", "stop", *NOT_COMPARED}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How two provenances differ, such as ['shard_samples was 1024, now 512']; empty if they give
    the same rows in the same shards."""
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if key not in NOT_COMPARED and old.get(key) != new.get(key)
    ]
