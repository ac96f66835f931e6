"""What every file beside a shard shares: the format version and the digests.

All digests are xxh3_128, written as 32 hexadecimal digits. A JSON document carries its own digest
under "digest": that of the same document without it, in canonical form.
"""

from __future__ import annotations

import json
from typing import Any

import xxhash

from ocrdata.errors import ShardError

FORMAT = "ocr-shards"
VERSION = "1.0"
"""major.minor: a reader reads any minor version of its own major version and of older ones."""

COMPRESSED_VERSION = "1.1"
"""What the index of a compressed shard says, and the newest this reader knows: 1.1 added them."""


LARGEST_COUNT = 1 << 42
"""The most of anything that a file of ours claims to hold: bytes of a shard, its samples. The sum
over a million shards fits in 64 bits."""


def is_count(value: object) -> bool:
    """Whether a JSON value is a number of things that there can be."""
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """xxh3_128 of bytes, as 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(data))


def check_version(file: str, version: object) -> None:
    """Raise ShardError where `version` is of a newer major version than this reader's, or none."""
    major = str(version).partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        raise ShardError(file, f"{version!r} is no format version")
    if int(major) > int(VERSION.partition(".")[0]):
        raise ShardError(
            file,
            f"format version {version} is newer than this reader's {COMPRESSED_VERSION}",
            remedy="update this software to read it",
        )


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its own digest in it."""
    body = {name: value for name, value in document.items() if name != "digest"}
    return {**body, "digest": digest_of(canonical(body))}


def check_seal(file: str, document: dict[str, Any]) -> None:
    """Raise ShardError where a document is not the one its digest was made of."""
    try:
        digest = seal(document)["digest"]
    except (ValueError, RecursionError):  # a number that is none, nested beyond all measure
        digest = None
    if digest is None or digest != document.get("digest"):
        raise ShardError(file, "its own digest differs: it was changed or damaged after writing")


def canonical(value: object) -> bytes:
    """One byte string for one JSON value: sorted names, no spaces, UTF-8."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("utf-8", "surrogatepass")


def parse_object(file: str, data: bytes | str) -> dict[str, Any]:
    """The JSON object in `data`. Raises ShardError where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ShardError(file, f"not readable as JSON: {str(exc)[:200]}") from exc
    if not isinstance(value, dict):
        raise ShardError(file, "the JSON is no object")
    return value
