"""Which work folder belongs to which place."""

from pathlib import Path

import pytest

from ocrdata.conversion.hub_work import HubWork
from ocrdata.conversion.open_work import open_work
from ocrdata.conversion.remote_work import RemoteWork
from ocrdata.conversion.work_folder import WorkFolder
from ocrdata.storage.location import Location


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("shards", WorkFolder),
        ("s3://bucket/shards", RemoteWork),
        ("https://host/shards", RemoteWork),
        ("hf://datasets/org/set/shards", HubWork),
    ],
)
def test_the_kind_is_that_of_the_place(place: str, kind: type, tmp_path: Path) -> None:
    work = open_work(Location(place), tmp_path, "set", None, 7)
    assert type(work) is kind and work.out == tmp_path and work.name == "set"
    assert work.place == (Location(place) if "://" in place else Location.of(tmp_path))
    assert getattr(work, "commit_shards", 7) == 7
