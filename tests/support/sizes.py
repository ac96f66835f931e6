"""Runs whose sources have images of different sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocrtrain.settings.config import Config
from tests.support.data import small_config

LARGE, SMALL = 128, 64  # px
"""7 and 3 positions."""


def two_sizes(inputs: dict[str, str]) -> dict[str, Any]:
    """The flags of a mix of squares at two sizes, and sums."""
    squares, sums = inputs["shards"], inputs["text"]
    return {
        "shards": (), "val": (), "text": (), "val_text": (),
        "source": (f"small={squares}[:24]:1", f"large={squares}[24:48]:1", f"sums={sums}[:30]:1/2"),
        "val_source": (
            f"small={squares}[48:54]", f"large={squares}[54:60]", f"sums={sums}[30:36]",
        ),
        "image_size_of": (f"large={LARGE}",),
    }  # fmt: skip


def sized_config(inputs: dict[str, str], out: Path, **values: Any) -> Config:
    """A run of 12 steps of 4 rows, mixed row by row."""
    return small_config(inputs, out, **{**two_sizes(inputs), "mix": "sample", **values})
