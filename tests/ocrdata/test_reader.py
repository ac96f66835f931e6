"""The documented import paths of the reader."""

import ocrdata
from ocrdata import reader
from ocrdata.reading import view


def test_reader_exports_the_names_of_the_view() -> None:
    assert {name: getattr(reader, name) for name in reader.__all__} == {
        "SampleRef": view.SampleRef,
        "Shards": view.Shards,
        "open_shards": view.open_shards,
    }
    assert all(getattr(ocrdata, name) is getattr(reader, name) for name in reader.__all__)
