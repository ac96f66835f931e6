"""Format versions, canonical JSON and checksums, the same for every file that is not a tar.

A sealed JSON document has its own checksum under "digest": that of the document without this key,
in canonical form. Checksums are xxh3_128, written as 32 hexadecimal digits.
"""

from __future__ import annotations

import json
import re
from typing import Any

import xxhash

from ocrdata.errors import ShardError

FORMAT = "ocr-shards"
VERSION = "1.0"
"""major.minor. A reader reads any minor version of its own major version and of older ones."""

COMPRESSED_VERSION = "1.1"
"""In the index of a compressed shard."""

FOREIGN_VERSION = "1.2"
"""In the index of a shard with samples that are not in our own layout. Older indexes of such shards
were made by other rules (docs/formats.md)."""

WEIGHTED_VERSION = "2.0"
"""In the index of a shard with an answer of weight 0: a reader of version 1 would train on that
answer, so it must refuse the shard."""

LARGEST_COUNT = 1 << 42
"""The largest valid size or count in our files: bytes of a shard, its samples. The sum over a
million shards fits in 64 bits."""


def is_count(value: object) -> bool:
    """Whether a JSON value is a valid size or count."""
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """xxh3_128 of bytes, as 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(data))


def version_problem(version: object, newest: str | int) -> str:
    """Why this reader cannot read a file of format `version`; "" if it can.

    Both versions are 'major' or 'major.minor'; a reader of `newest` reads any minor version of the
    same major version and of older ones. The caller adds the file and raises its own error.
    """
    major = re.fullmatch(r"([0-9]{1,9})(\..*)?", str(version), re.DOTALL)
    if major is None:
        return f"invalid format version {version!r}"
    if int(major[1]) > int(str(newest).partition(".")[0]):
        return (
            f"format version {version} is newer than {newest}, the newest that can be read; "
            "update this software"
        )
    return ""


def check_version(file: str, version: object, newest: str = VERSION) -> None:
    """Raise ShardError if the version of a shard's file is malformed, or newer than `newest`, the
    newest that this reader knows of such a file.

    Example: "2.0" is too new for a reader of "1.0"; "1.7" is not.
    """
    problem = version_problem(version, newest)
    if problem:
        raise ShardError(file, problem)


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its own checksum under "digest"."""
    body = {name: value for name, value in document.items() if name != "digest"}
    return {**body, "digest": digest_of(canonical(body))}


def check_seal(file: str, document: dict[str, Any]) -> None:
    """Raise ShardError if a sealed document does not match its checksum."""
    try:
        digest = seal(document)["digest"]
    except (ValueError, RecursionError):  # NaN or infinity, or nested too deeply
        digest = None
    if digest is None or digest != document.get("digest"):
        raise ShardError(
            file, "checksum mismatch: the file was modified or corrupted after it was written"
        )


def canonical(value: object) -> bytes:
    """One byte string for one JSON value: sorted keys, no spaces, UTF-8.

    For the checksums of sealed documents, views, plans and skipped samples; the lines of rejects.
    """
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("utf-8", "surrogatepass")


def canonical_ascii(value: object) -> bytes:
    """As `canonical`, with characters beyond ASCII escaped. For a tokenizer's fingerprint."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def canonical_spaced(value: object) -> bytes:
    """As `canonical_ascii`, with a space after ',' and ':'. For the file list of a checkpoint, and
    the header of an encoder file."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False).encode()


def parse_object(file: str, data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object. Raises ShardError for invalid JSON and for any other JSON value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ShardError(file, f"not readable as JSON: {str(exc)[:200]}") from exc
    if not isinstance(value, dict):
        raise ShardError(file, "the JSON is not an object")
    return value
