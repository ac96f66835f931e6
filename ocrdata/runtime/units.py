"""Human-readable sizes and times."""

from __future__ import annotations

import re
from fractions import Fraction

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([KMGTP])(I?))?B?", re.IGNORECASE)


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KB' (powers of 1000, as for disks and networks)."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def parse_bytes(text: str) -> int:
    """'20GB' -> 20 * 10^9; '1.5 TiB' -> 1.5 * 2^40; '512' -> 512. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid size {text!r}; write one such as 20GB, 500MB or 1.5TiB")
    number, unit, binary = match[1], (match[2] or "").upper(), match[3]
    scale = (1024 if binary else 1000) ** " KMGTP".index(unit or " ")
    return int(Fraction(number) * scale)


def human_time(seconds: float) -> str:
    """3725 -> '1 h 02 min'; 61 -> '1 min 01 s'; 4.2 -> '4.2 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
