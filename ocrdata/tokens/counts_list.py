"""The list of a set's token counts: `NAME.tokens-<fingerprint>.json` beside the manifest
(docs/formats.md).

It is written once all counts of the set lie beside its shards, and names each file with its size
and digest, so that a reader far away need not look for them one by one. Counts files carry their
own digests: on a local disk they are used without the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from ocrdata.errors import DiskError, ShardError
from ocrdata.shards.manifest import Manifest, ShardInfo
from ocrdata.shards.names import set_location, set_name
from ocrdata.storage.file import exists, read_all
from ocrdata.storage.files import discard, readable_json, write_json
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.locks import only_one, remove_abandoned
from ocrdata.storage.sealed import (
    FORMAT,
    VERSION,
    check_seal,
    check_version,
    digest_of,
    is_count,
    parse_object,
    seal,
)
from ocrdata.storage.upload import upload_bytes
from ocrdata.tokens.counts import check_counts, counts_path

KIND = "tokens-list"
REMEDY = "delete it; the next plan writes it again"

ASKED_AT_ONCE = 16
"""Counts files at a URL that are read at a time."""

_NAME = re.compile(r"(.+)\.tokens-([0-9a-f]+)\.json")


@dataclass(frozen=True)
class CountsInfo:
    """The entry for one shard. `file` is the shard's, `rows_digest` that of its index's rows, as in
    the manifest; `bytes` and `digest` are those of its counts file."""

    file: str
    samples: int
    bytes: int
    digest: str
    rows_digest: str


@dataclass(frozen=True)
class CountsList:
    """The counts files of all shards of a set that have samples, for one tokenizer."""

    name: str
    fingerprint: str
    shards: tuple[CountsInfo, ...]
    version: str = VERSION

    def find(self, shard: ShardInfo) -> CountsInfo | None:
        """The entry for a shard of a manifest; None if the list is not about these samples."""
        entry = self._by_file.get(shard.file)
        if entry is None or (entry.samples, entry.rows_digest) != (
            shard.samples,
            shard.rows_digest,
        ):
            return None
        return entry

    @cached_property
    def _by_file(self) -> dict[str, CountsInfo]:
        return {entry.file: entry for entry in self.shards}

    def document(self) -> dict[str, Any]:
        """What its file holds, sealed."""
        body = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        body["shards"] = [asdict(entry) for entry in self.shards]
        return seal({"format": FORMAT, "kind": KIND, **body})


def counts_list_path(manifest: LocationLike, fingerprint: str) -> Location:
    """The list beside a manifest: NAME.json -> NAME.tokens-<fingerprint>.json."""
    location = Location.of(manifest)
    return location.sibling(f"{location.name.removesuffix('.json')}.tokens-{fingerprint}.json")


def named_as_list(file: str) -> tuple[str, str] | None:
    """The set and the fingerprint in the name of such a list; None for other names."""
    match = _NAME.fullmatch(file)
    return (match[1], match[2]) if match else None


def counts_info(shard: Location, info: ShardInfo, fingerprint: str) -> CountsInfo:
    """The entry for a shard, from the counts file beside it. Raises ShardError if that is damaged,
    or belongs to other samples."""
    path = counts_path(shard, fingerprint)
    header = check_counts(path, rows_digest=info.rows_digest, fingerprint=fingerprint)
    if header.samples != info.samples:
        raise ShardError(str(path), f"has {header.samples:,} counts for {info.samples:,} samples")
    data = read_all(path)
    return CountsInfo(info.file, info.samples, len(data), digest_of(data), info.rows_digest)


def write_counts_list(folder: Location, manifest: Manifest, fingerprint: str) -> None:
    """Write the list of a complete set in a local folder, if there is none and all its counts are
    there. A counts file that is damaged, and a folder that cannot be written, leave the set without
    a list."""
    manifest_file = folder / f"{manifest.name}.json"
    path = counts_list_path(manifest_file, fingerprint)
    if exists(path):
        remove_abandoned(path.path)
        return
    shards = [(folder / info.file, info) for info in manifest.shards if info.samples]
    counted = (exists(counts_path(shard, fingerprint)) for shard, _ in shards)
    if not (exists(manifest_file) and all(counted)):
        return
    with suppress(ShardError, DiskError), only_one(path.path):
        entries = tuple(counts_info(shard, info, fingerprint) for shard, info in shards)
        listed = CountsList(manifest.name, fingerprint, entries)
        write_json(path.path, listed.document())


def send_counts_list(folder: Location, manifest: Manifest, fingerprint: str) -> None:
    """Write the list of a complete set at a URL, all of whose counts are there, unless the same one
    is there. Raises ShardError, and TransportError also for missing counts."""
    shards = [info for info in manifest.shards if info.samples]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        found = pool.map(lambda info: counts_info(folder / info.file, info, fingerprint), shards)
        listed = CountsList(manifest.name, fingerprint, tuple(found))
    path = counts_list_path(folder / f"{manifest.name}.json", fingerprint)
    with suppress(ShardError):  # one that is damaged or missing is replaced
        if read_counts_list(path) == listed:
            return
    upload_bytes(path, readable_json(listed.document()))


def remove_counts_lists(shards: Iterable[Location], fingerprint: str) -> None:
    """Remove the lists of the sets of these shards, whose counts are about to be made again. (Where
    a folder cannot be written, the counts beside its shards cannot be, either.)"""
    local = [one for one in shards if not one.scheme and set_name(one.name)]
    for name in set(map(set_location, local)):
        discard(counts_list_path(name.sibling(f"{name.name}.json"), fingerprint).path)


def read_counts_list(location: LocationLike) -> CountsList:
    """Read and verify a list. Raises ShardError where it is damaged or of a newer version,
    TransportError where it cannot be read."""
    name, place = str(location), Location.of(location)
    try:
        data = read_all(place)
    except FileNotFoundError as exc:
        raise ShardError(name, "the list of token counts is missing") from exc
    document = parse_object(name, data)
    if document.get("format") != FORMAT or document.get("kind") != KIND:
        raise ShardError(name, "is not a list of token counts", remedy=REMEDY)
    check_version(name, document.get("version"))
    check_seal(name, document)
    try:
        values = {entry.name: document[entry.name] for entry in fields(CountsList)}
        values["shards"] = tuple(_entry(entry) for entry in document["shards"])
        found = CountsList(**values)
        if not (isinstance(found.name, str) and isinstance(found.fingerprint, str)):
            raise ValueError("name or fingerprint is not a string")
    except (KeyError, TypeError, ValueError) as exc:
        raise ShardError(
            name, f"a field of the list is missing or invalid: {exc}", remedy=REMEDY
        ) from exc
    if len(found._by_file) != len(found.shards):
        raise ShardError(name, "it lists a shard twice", remedy=REMEDY)
    return found


def _entry(entry: dict[str, Any]) -> CountsInfo:
    info = CountsInfo(**{one.name: entry[one.name] for one in fields(CountsInfo)})
    if not (is_count(info.samples) and is_count(info.bytes)):
        raise ValueError(f"{info.file}: sample or byte count is out of range")
    if not all(isinstance(one, str) for one in (info.file, info.digest, info.rows_digest)):
        raise ValueError(f"{info.file}: the file or a digest is not a string")
    return info
