"""The slice that may follow a shard spec: `[start:stop:step]`, with Python's rules."""

from __future__ import annotations

import re

from ocrdata.errors import SpecError
from ocrdata.shards.ranges import NUMBER
from ocrdata.storage.files import exists
from ocrdata.storage.location import Location

_SLICE = re.compile(r"\[([^\[\]]*)\]$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*")


def split_slice(text: str) -> tuple[str, str | None]:
    """'a.tar[1:2]' -> ('a.tar', '1:2'); a path that exists as written has no slice."""
    match = _SLICE.search(text)
    if match is None or exists(text):
        return text, None
    if ":" not in match[1]:
        if re.fullmatch(rf"-?{NUMBER}", match[1]) and ".tar" in text:
            number = int(match[1])
            raise SpecError(
                f"{text}: [{number}] is a position, not a slice; write "
                f"[{number}:{number + 1 or ''}] for this one sample"
            )
        return text, None
    return text[: match.start()], match[1]


def parse_slice(spec: str, text: str | None) -> slice | None:
    """'100:-5:2' -> slice(100, -5, 2). Raises SpecError if it is not a valid Python slice."""
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) > 3 or not all(re.fullmatch(rf"\s*([+-]?{NUMBER})?\s*", part) for part in parts):
        raise SpecError(f"{spec}: [{text}] is not a slice; write [start:stop] or [start:stop:step]")
    numbers = [int(part) if part.strip() else None for part in parts]
    if len(numbers) == 3 and numbers[2] == 0:
        raise SpecError(f"{spec}: the step of a slice cannot be 0")
    return slice(*numbers)


def url_with_secret(text: str) -> str:
    """The URL in a spec, without them, if it has a user, a password or a query; else ""."""
    match = _URL.search(text)
    location = Location(split_slice(match[0])[0]) if match else None
    return str(location) if location is not None and location.has_secret else ""
