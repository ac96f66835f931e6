"""The manifest `NAME.json`: the shards of a complete set, and where they come from
(docs/formats.md).

It is written last and atomically, so its presence means that the set is complete. Nothing in it
depends on when, where or with how many workers the set was made.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ocrdata.errors import ShardError
from ocrdata.shards.index import index_path
from ocrdata.shards.index import read_header as read_index_header
from ocrdata.storage.file import exists, open_file, read_all, size_of
from ocrdata.storage.files import explain_disk, write_json
from ocrdata.storage.location import Location, LocationLike
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

KIND = "manifest"
_KINDS = {"name": str, "licence": str, "provenance": dict, "totals": dict, "rejects": dict}


@dataclass(frozen=True)
class ShardInfo:
    """A manifest's entry for one shard. `file` is a name without folder; `bytes` and `digest`
    are those of the file on disk, compressed or not; `index_digest` is that of the index file,
    `rows_digest` that of the index's rows."""

    file: str
    samples: int
    bytes: int
    digest: str
    index_digest: str
    rows_digest: str


@dataclass(frozen=True)
class Manifest:
    """A shard set. `provenance` records where the samples come from (repository, pinned commit,
    slice, options); its "command", if any, recreates the set and is quoted in error messages."""

    name: str
    shards: tuple[ShardInfo, ...]
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, Any] = field(default_factory=dict)
    version: str = VERSION

    @property
    def samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of all shards on the disk, compressed or not."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def digest(self) -> str:
        """The manifest's own digest. It identifies the set and its provenance."""
        return str(_document(self)["digest"])


def _document(manifest: Manifest) -> dict[str, Any]:
    body = {entry.name: getattr(manifest, entry.name) for entry in fields(manifest)}
    body["shards"] = [asdict(shard) for shard in manifest.shards]
    # Through JSON once, so that the digest is that of the values a reader will parse.
    plain = json.loads(json.dumps(body | {"format": FORMAT, "kind": KIND}, default=dict))
    return seal(plain)


def write_manifest(path: LocationLike, manifest: Manifest) -> None:
    """Write `NAME.json` atomically. Call it last, when all shards of the set are complete."""
    write_json(Location.of(path).path, _document(manifest))


def is_manifest(path: LocationLike) -> bool:
    """Whether a JSON file claims to be a manifest; it may still be damaged. False for a pipe or a
    folder."""
    # Either one is enough: a file with only one of them is a damaged manifest, not somebody's JSON.
    head, _ = _head(path)
    return f'"format": "{FORMAT}"'.encode() in head or f'"kind": "{KIND}"'.encode() in head


def is_other_json(path: LocationLike) -> bool:
    """Whether a file is somebody's JSON or JSON Lines, and not a manifest, not even what is left of
    one. A manifest that was cut is no JSON, and in a larger one what it claims comes first."""
    head, size = _head(path)
    text = head.decode("utf-8-sig", "replace").lstrip()
    if is_manifest(path) or not text.startswith(("{", "[")):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return size > len(head)
    return True


def _head(path: LocationLike) -> tuple[bytes, int]:
    """The first bytes of a file, and its size; nothing of a pipe or a folder."""
    try:
        file = open_file(path)
        return file.read(0, min(file.size, 1 << 16)), file.size
    except ShardError:
        return b"", 0


def read_manifest(path: LocationLike) -> Manifest:
    """Read and verify a manifest. Raises ShardError where it is damaged or of a newer version."""
    name = str(path)
    if Location.of(path).scheme:
        data = read_all(path)
        try:
            return _parse(name, data)
        except ShardError:
            return _parse(
                name, read_all(path)
            )  # once more: wrong bytes may come under right headers
    try:
        with explain_disk(Location.of(path).path):
            data = read_all(path)
    except FileNotFoundError as exc:
        raise ShardError(name, "the manifest is missing") from exc
    return _parse(name, data)


def _parse(name: str, data: bytes) -> Manifest:
    document = parse_object(name, data)
    if document.get("format") != FORMAT or document.get("kind") != KIND:
        raise ShardError(
            name,
            "not a manifest of shards; rows of your own are converted with "
            f"python tools/make_shards.py jsonl --path {shlex.quote(name)}",
        )
    check_version(name, document.get("version"))
    check_seal(name, document)
    try:
        shards = tuple(_shard(entry) for entry in document["shards"])
        wanted = {entry.name: document[entry.name] for entry in fields(Manifest)}
        for field_name, kind in _KINDS.items():
            if not isinstance(wanted[field_name], kind):
                raise ValueError(f"{field_name} is not of type {kind.__name__}")
    except (KeyError, TypeError, ValueError) as exc:
        raise ShardError(name, f"a field of the manifest is missing or invalid: {exc}") from exc
    if len({shard.file for shard in shards}) != len(shards):
        raise ShardError(name, "the manifest lists a shard twice")
    return Manifest(**{**wanted, "shards": shards})


def _shard(entry: dict[str, Any]) -> ShardInfo:
    info = ShardInfo(**{name.name: entry[name.name] for name in fields(ShardInfo)})
    if not isinstance(info.file, str) or Location(info.file).name != info.file or info.file == "..":
        raise ValueError(f"shard file {info.file!r} is not a plain file name")
    if not (is_count(info.samples) and is_count(info.bytes)):
        raise ValueError(f"{info.file}: sample or byte count is out of range")
    if not all(
        isinstance(part, str) for part in (info.digest, info.index_digest, info.rows_digest)
    ):
        raise ValueError(f"{info.file}: a digest is not a string")
    return info


def shard_info(path: LocationLike) -> ShardInfo:
    """The manifest's entry for a finished shard, from its index; the tar's payload is not read.

    Raises ShardError if the index is missing, damaged, or belongs to a tar of another size.
    """
    shard, file = Location.of(path), index_path(path)
    for needed in (shard, file):
        if not exists(needed):
            raise ShardError(str(needed), "the file is missing")
    found, size = read_index_header(file), size_of(shard)
    if size != found.shard_size:
        raise ShardError(
            str(shard), f"has {size:,} bytes, its index belongs to a file of {found.shard_size:,}"
        )
    return ShardInfo(
        file=shard.name,
        samples=found.samples,
        bytes=size,
        digest=found.shard_digest,
        index_digest=digest_of(read_all(file)),
        rows_digest=found.rows_digest,
    )
