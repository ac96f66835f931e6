"""The documented import path of the reader: `from ocrdata.reader import open_shards`."""

from ocrdata.reading.view import SampleRef, Shards, open_shards

__all__ = ["SampleRef", "Shards", "open_shards"]
