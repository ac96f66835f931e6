"""Shards of conversations with images: converted, read with verification, sliced, mixed, planned.

The data side of the toolkit: it never imports `ocrtrain` and does not need torch. The names below
import the reader on first use, so that `import ocrdata.errors` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocrdata.reading.view import SampleRef, Shards, open_shards
    from ocrdata.sample import Sample

__all__ = ["Sample", "SampleRef", "Shards", "open_shards"]


def __getattr__(name: str) -> object:
    if name == "Sample":
        from ocrdata.sample import Sample

        return Sample
    if name in __all__:
        from ocrdata.reading import view

        return getattr(view, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
