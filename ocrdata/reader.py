"""`from ocrdata.reader import open_shards`: the reader by the name it is documented under."""

from ocrdata.reading.view import SampleRef, Shards, open_shards

__all__ = ["SampleRef", "Shards", "open_shards"]
