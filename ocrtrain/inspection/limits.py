"""How much of a batch is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most to show of a batch: rows, samples with their text, images, and tokens of each sample
    (an image counts as one)."""

    rows: int = 256
    samples: int = 64
    images: int = 32
    tokens: int = 1024
