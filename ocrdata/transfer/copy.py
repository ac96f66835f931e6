"""Copies a shard set to another place, file by file: each verified before it can be seen there, the
manifest last. The same call goes on after an interruption.

A file on its way to this machine is compared with its digest as it arrives; one that is sent to a
URL lies on this machine, where it is compared first. So a copy from URL to URL passes through a
work folder, which also has the record of what was sent. What is at the target and right is not
copied again. A set without a manifest can be copied between folders of this machine only.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ocrdata.errors import DiskError, SpecError, UsageError
from ocrdata.reading.index_tar import find_index
from ocrdata.reading.spec import resolve
from ocrdata.runtime.units import human_bytes
from ocrdata.shards.index import index_path, read_header
from ocrdata.shards.manifest import Manifest, read_manifest
from ocrdata.shards.names import is_shard, set_title, shard_stem
from ocrdata.storage.download import check_digest, download, pieces
from ocrdata.storage.file import digest_of_file, exists, list_names, open_file, read_all, size_of
from ocrdata.storage.files import discard, free_bytes, make_folder
from ocrdata.storage.location import Location
from ocrdata.storage.locks import Lock
from ocrdata.storage.remote import ObjectStatus, names_in, status
from ocrdata.storage.sealed import digest_of
from ocrdata.storage.upload import abort_pending, upload
from ocrdata.tokens.counts_list import counts_list_path, named_as_list, read_counts_list

REPORTS = ("rejects", "damaged", "left-out")
"""What conversions report, looked for by name where nothing is listed."""

ASKED_AT_ONCE = 16
"""Files that are looked for at a time."""

Report = Callable[[int], object]


@dataclass(frozen=True)
class SetFile:
    """A file of a set, with the digest that it must have. The size of an index at a URL is not
    known before it is read."""

    name: str
    digest: str
    size: int | None = None


@dataclass(frozen=True)
class SetFiles:
    """The files of a set in one folder. `shards` are those of each shard, the tar first; `others`
    are reports and lists of token counts. `unseen` says what could not be looked for."""

    name: str
    folder: Location
    shards: tuple[tuple[SetFile, ...], ...]
    others: tuple[SetFile, ...] = ()
    manifest: SetFile | None = None
    manifest_digest: str = ""
    unseen: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of the tars."""
        return sum(files[0].size or 0 for files in self.shards)


def files_of(spec: str, fingerprints: Sequence[str] = ()) -> SetFiles:
    """The files of the set that a spec names. Where nothing is listed, as at https://, token counts
    are looked for by the fingerprints of their tokenizers. Raises SpecError, ShardError."""
    found = resolve(spec)
    folder = found.files[0].folder
    if found.slice is not None:
        raise SpecError(f"{spec}: whole sets are copied; tools/reshard.py makes a set of a slice")
    if any(file.folder != folder for file in found.files):
        raise SpecError(f"{spec}: these shards are in several folders; copy one set at a time")
    manifest = found.manifest
    if manifest is None and found.listed:
        raise SpecError(f"{spec}: these shards are of several sets; copy one set at a time")
    if manifest is None:
        return _without_manifest(folder, found.files)
    if len(manifest.shards) != len(found.files):
        raise SpecError(
            f"{spec}: names {len(found.files):,} of {len(manifest.shards):,} shards; name the "
            f"manifest, {folder / f'{manifest.name}.json'}"
        )
    return _with_manifest(folder, manifest, fingerprints)


def _without_manifest(folder: Location, tars: Sequence[Location]) -> SetFiles:
    shards = []
    for tar in tars:
        index = find_index(tar)
        files = [SetFile(tar.name, read_header(index).shard_digest, size_of(tar))]
        if index == index_path(tar):
            files.append(_small(folder, index.name))
        shards.append(tuple(files))
    return SetFiles(set_title(tars[0]), folder, tuple(shards))


def _with_manifest(folder: Location, manifest: Manifest, fingerprints: Sequence[str]) -> SetFiles:
    name, unseen = manifest.name, ""
    place = folder / f"{name}.json"
    names = names_in(folder) if folder.scheme else list_names(folder)
    if names is None:
        asked = [f"{name}.{report}.jsonl" for report in REPORTS]
        asked += [counts_list_path(place, each).name for each in fingerprints]
        names = [each for each in asked if exists(folder / each)]
        if not fingerprints:
            unseen = (
                "token counts are not looked for without --tokenizer: the server lists no files"
            )
    of_set = re.compile(rf"{re.escape(name)}\.(?:[a-z-]+\.jsonl|tokens-[0-9a-f]+\.json)")
    others = [each for each in names if of_set.fullmatch(each)]
    lists = [read_counts_list(folder / each) for each in others if named_as_list(each)]
    counts: dict[str, list[SetFile]] = {}
    for each in names:
        if match := re.fullmatch(r"(.+)\.tokens-[0-9a-f]+\.parquet", each):
            counts.setdefault(match[1], []).append(SetFile(each, ""))
    shards = []
    for info in manifest.shards:
        stem = shard_stem(info.file)
        tar = SetFile(info.file, info.digest, info.bytes)
        index = SetFile(index_path(info.file).name, info.index_digest)
        beside = {file.name: file for file in counts.get(stem, ())}
        for entry, fingerprint in ((one.find(info), one.fingerprint) for one in lists):
            if entry is not None:
                file = f"{stem}.tokens-{fingerprint}.parquet"
                beside[file] = SetFile(file, entry.digest, entry.bytes)
        known = [file if file.digest else _small(folder, file.name) for file in beside.values()]
        shards.append((tar, index, *sorted(known, key=lambda file: file.name)))
    small = tuple(_small(folder, each) for each in sorted(others))
    last = _small(folder, place.name)
    return SetFiles(name, folder, tuple(shards), small, last, manifest.digest, unseen)


def _small(folder: Location, name: str) -> SetFile:
    """A file that is read here to know its digest."""
    data = read_all(folder / name)
    return SetFile(name, digest_of(data), len(data))


class FolderTarget:
    """A folder of this machine."""

    def __init__(self, source: SetFiles, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.place = Location.of(folder)

    def open(self, stack: ExitStack) -> None:
        """Take the lock of the output until `stack` is closed. Raises UsageError, DiskError."""
        make_folder(self.folder)
        lock = self.folder / f".{self.source.name}.lock"
        stack.enter_context(Lock(lock, f"shards {self.folder / self.source.name}"))

    def has(self, file: SetFile) -> bool:
        """Whether a file is there, and right. Raises UsageError if another file has its name."""
        path = self.place / file.name
        if not exists(path):
            return False
        opened = open_file(path)
        try:
            right = file.size in (None, opened.size) and digest_of_file(opened) == file.digest
        finally:
            opened.close()
        if not right and is_shard(file.name):
            raise _occupied(path)
        return right

    def check_space(self, size: int) -> None:
        """Raise DiskError if `size` bytes do not fit."""
        free = free_bytes(self.folder)
        if size > free:
            raise DiskError(
                f"{self.folder}: {human_bytes(size)} are needed, {human_bytes(free)} are free; "
                "free some space or choose another place"
            )

    def put(self, file: SetFile, report: Report) -> None:
        """Copy a file. Raises ShardError, DiskError."""
        origin = self.source.folder / file.name
        download(origin, self.folder / file.name, size=file.size, digest=file.digest, report=report)

    def finish(self) -> None:
        """Called after the manifest."""


class UrlTarget:
    """A folder at a URL. `work` is a folder of this machine for this copy alone: files on their
    way, and `sent.jsonl`, a line for each file that was sent, under what digest, and what the store
    says of it."""

    def __init__(self, source: SetFiles, place: Location, work: Path, *, complete: bool) -> None:
        self.source, self.place, self.work, self.complete = source, place, work, complete
        self._record = work / "sent.jsonl"
        self._sent: dict[tuple[str, str], ObjectStatus] = {}
        self._writing = threading.Lock()

    def open(self, stack: ExitStack) -> None:
        """As that of `FolderTarget`; also removes what killed processes left."""
        name = self.source.name
        make_folder(self.work)
        stack.callback(_remove_if_empty, self.work)
        stack.enter_context(Lock(self.work / ".lock", f"shards {self.place / name}"))
        for path in self.work.iterdir():
            if path.name not in (".lock", self._record.name):
                path.unlink()
        files = {file.name for files in self.source.shards for file in files}
        abort_pending(self.place, files.__contains__, name)
        with suppress(FileNotFoundError):
            for line in self._record.read_text().splitlines():
                with suppress(ValueError):  # cut by a kill
                    file, digest, *found = json.loads(line)
                    self._sent[file, digest] = ObjectStatus(*found)

    def has(self, file: SetFile) -> bool:
        """Whether a file is there, and right: as it was sent from here, or of the right size in a
        complete set. Raises UsageError if another shard has its name."""
        place = self.place / file.name
        found = status(place)
        if found is None:
            return False
        if self._sent.get((file.name, file.digest)) == found:
            return True
        if not is_shard(file.name):
            return digest_of(read_all(place)) == file.digest
        if not self.complete and found.size != file.size:
            raise _occupied(place)
        return self.complete and found.size == file.size

    def check_space(self, size: int) -> None:
        """Nothing stays on this machine."""

    def put(self, file: SetFile, report: Report) -> None:
        """Send a file and record it. Raises ShardError, DiskError."""
        origin = self.source.folder / file.name
        passing = origin.scheme != ""
        path = self.work / file.name if passing else origin.path
        try:
            if passing:
                download(origin, path, size=file.size, digest=file.digest, report=report)
            else:
                _check(origin, file)
            found = upload(self.place / file.name, path)
        finally:
            if passing:
                discard(path)
        if not passing:
            report(found.size)
        line = json.dumps([file.name, file.digest, *found]) + "\n"
        with self._writing, self._record.open("a") as record:
            record.write(line)
            record.flush()
            os.fsync(record.fileno())

    def finish(self) -> None:
        """Forget what was sent: the set is complete."""
        discard(self._record)


def _check(origin: Location, file: SetFile) -> None:
    """Raise DigestError unless a file of this machine has its digest."""
    opened, hasher = open_file(origin), xxhash.xxh3_128()
    try:
        for piece in pieces(opened):
            hasher.update(piece)
        check_digest(opened, hasher.hexdigest(), file.digest)
    finally:
        opened.close()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _occupied(place: Location) -> UsageError:
    return UsageError(
        f"{place}: exists, and is not the file of that name in the set to be copied; delete it, or "
        "choose another place"
    )


def target_of(source: SetFiles, place: Location, work: Path) -> FolderTarget | UrlTarget:
    """Where to copy to; `work` as for `UrlTarget`. Raises UsageError where another set of the name
    is, or the place is that of the source."""
    manifest = place / f"{source.name}.json"
    if not place.scheme and not source.folder.scheme:
        same = os.path.realpath(place.path) == os.path.realpath(source.folder.path)
    else:
        same = place.text.rstrip("/") == source.folder.text.rstrip("/")
    if same:
        raise UsageError(f"{place}: the set is there already; choose another place")
    complete = exists(manifest)
    if complete and read_manifest(manifest).digest != source.manifest_digest:
        raise UsageError(
            f"{manifest}: another set of this name is there; delete it or choose another place"
        )
    if not place.scheme:
        return FolderTarget(source, place.path)
    if source.manifest is None:
        raise UsageError(
            f"{source.folder / source.name}: has no manifest, which a set at a URL needs; convert "
            "it with python tools/make_shards.py webdataset --out URL, or make a set of it with "
            "python tools/reshard.py"
        )
    return UrlTarget(source, place, work, complete=complete)


@dataclass(frozen=True)
class CopyPlan:
    """What is to be copied: the missing files of each shard that lacks some, then other files."""

    shards: tuple[tuple[SetFile, ...], ...]
    others: tuple[SetFile, ...]

    @property
    def bytes(self) -> int:
        """Their bytes, as far as they are known before."""
        files = [file for shard in (*self.shards, self.others) for file in shard]
        return sum(file.size or 0 for file in files)


def plan_copy(target: FolderTarget | UrlTarget) -> CopyPlan:
    """Look for what is missing. Raises UsageError, TransportError."""
    source = target.source
    others = (*source.others, *([source.manifest] if source.manifest else []))
    groups = (*source.shards, others)

    def missing(files: tuple[SetFile, ...]) -> tuple[SetFile, ...]:
        return tuple(file for file in files if not target.has(file))

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        *shards, rest = pool.map(missing, groups)
    return CopyPlan(tuple(files for files in shards if files), rest)


def copy_files(
    target: FolderTarget | UrlTarget,
    plan: CopyPlan,
    workers: int,
    report: Report,
    done: Callable[[str], object],
) -> None:
    """Copy what is missing, `workers` shards at a time, the manifest last. `report` gets the bytes
    of each piece, `done` the name of each shard that is complete; both may be called by any thread.
    Raises ShardError, DiskError."""

    failed = threading.Event()

    def copy(files: tuple[SetFile, ...]) -> None:
        try:
            for file in files:
                if failed.is_set():
                    return
                target.put(file, report)
        except BaseException:
            failed.set()
            raise
        done(files[0].name)

    pool = ThreadPoolExecutor(workers)
    running = [pool.submit(copy, files) for files in plan.shards]
    try:
        wait(running, return_when=FIRST_EXCEPTION)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(cancel_futures=True)
    for each in running:
        if not each.cancelled():
            each.result()
    for file in plan.others:
        target.put(file, report)
    target.finish()
