"""The work folder for the place where a set is to be: a folder, a bucket or server, or the hub."""

from __future__ import annotations

from pathlib import Path

from ocrdata.conversion.hub_work import COMMIT_SHARDS, HubWork
from ocrdata.conversion.remote_work import RemoteWork
from ocrdata.conversion.work_folder import OnShards, WorkFolder
from ocrdata.storage.location import Location


def open_work(
    place: Location,
    out: Path,
    name: str,
    on_shards: OnShards | None = None,
    commit_shards: int = COMMIT_SHARDS,
) -> WorkFolder:
    """The work folder of the set `name` at `place`; `out` is where its shards are made."""
    if not place.scheme:
        return WorkFolder(out, name, on_shards)
    if place.scheme == "hf":
        return HubWork(place, out, name, on_shards, commit_shards)
    return RemoteWork(place, out, name, on_shards)
