"""Names: of a shard, of the files beside it, of the set it belongs to, and of its members.

`NAME-000.tar` is plain, `NAME-000.tar.zst` compressed. Both have the stem `NAME-000`, so two such
files in one folder would share an index; a spec that names both is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ocrdata.images.decode import ImageInfo
from ocrdata.storage.location import Location, LocationLike

PLAIN, COMPRESSED = ".tar", ".tar.zst"
KEY_DIGITS = 9
"""Digits of a key at least: the number of the origin row."""

_NUMBERED = re.compile(r"(?:(.+)[-_])?([0-9]{3,})")
"""The stem of a numbered shard: ours is NAME-000, other tools also write NAME_000 and 00000."""


def is_shard(name: str) -> bool:
    """Whether a file of this name is a shard."""
    return name.endswith((PLAIN, COMPRESSED))


def is_compressed(name: str) -> bool:
    """Whether a file of this name is a compressed shard."""
    return name.endswith(COMPRESSED)


def shard_stem(name: str) -> str:
    """'chartqa-003.tar' and 'chartqa-003.tar.zst' -> 'chartqa-003'; other names as they are."""
    return name.removesuffix(COMPRESSED).removesuffix(PLAIN)


def beside(shard: LocationLike, suffix: str) -> Location:
    """The file beside a shard: NAME-000.tar, '.index.parquet' -> NAME-000.index.parquet."""
    location = Location.of(shard)
    return location.sibling(shard_stem(location.name) + suffix)


def set_name(file: str) -> str:
    """'chartqa-003.tar' -> 'chartqa'; 'photos.tar.zst' -> 'photos'; '00000.tar' -> ''."""
    stem = shard_stem(file)
    match = _NUMBERED.fullmatch(stem) if stem != file else None
    return match[1] or "" if match else stem


def set_location(shard: LocationLike) -> Location:
    """The set that a shard belongs to: 'shards/chartqa-003.tar' -> 'shards/chartqa'; the folder if
    its name is a number only: 'laion/00000.tar' -> 'laion'."""
    location = Location.of(shard)
    name = set_name(location.name)
    return location.sibling(name) if name else location.folder


def set_title(shard: LocationLike) -> str:
    """What to call the set of a shard: 'chartqa'; that of laion/00000.tar is 'laion'."""
    location = Location.of(shard)
    return set_name(location.name) or Location(os.path.abspath(location.folder)).name or "shards"


def shard_number(file: str) -> int | None:
    """'chartqa-003.tar' -> 3; None for a name without a number."""
    stem = shard_stem(file)
    match = _NUMBERED.fullmatch(stem) if stem != file else None
    return int(match[2]) if match else None


def natural(locations: Iterable[Location]) -> list[Location]:
    """Locations with their numbers in numeric order: x-999 before x-1000."""

    def order(location: Location) -> tuple[list[tuple[int, str]], str]:
        pieces = re.split(r"(\d+)", location.text)
        numbered = [(int(p) if n % 2 else 0, "" if n % 2 else p) for n, p in enumerate(pieces)]
        return numbered, location.text

    return sorted(locations, key=order)


def make_key(row: int) -> str:
    """The key of an origin row: 3127 -> '000003127'."""
    return f"{row:0{KEY_DIGITS}d}"


def is_key(text: str) -> bool:
    """Whether a text has the form of a key: `KEY_DIGITS` decimal digits or more."""
    return text.isascii() and text.isdigit() and len(text) >= KEY_DIGITS


def image_names(key: str, images: Iterable[ImageInfo]) -> list[str]:
    """The member names of a sample's images, in their order: KEY.png, KEY.1.jpg, KEY.2.png."""
    return [
        f"{key}.{number}.{image.format}" if number else f"{key}.{image.format}"
        for number, image in enumerate(images)
    ]
