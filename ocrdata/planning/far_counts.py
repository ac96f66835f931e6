"""Token counts of shards at URLs: from the list beside their manifest, kept in the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ocrdata.errors import MissingError, ShardError, TransportError, first_line
from ocrdata.reading.shard_entry import fetch_listed
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.names import set_name
from ocrdata.storage.location import Location
from ocrdata.storage.small_files import get_small, put_small
from ocrdata.tokens.counts import counts_path
from ocrdata.tokens.counts_list import CountsList, counts_list_path, read_counts_list

FETCHES = 16
"""Files fetched at once."""

_log = logging.getLogger(__name__)


def kept_counts(shard: Location, rows_digest: str, fingerprint: str) -> bytes | None:
    """The counts file of a shard at a URL, if it is kept."""
    return get_small(_name(shard, rows_digest, fingerprint))


def keep_counts(shard: Location, rows_digest: str, fingerprint: str, data: bytes) -> bool:
    """Keep the counts file of a shard at a URL; False if that is impossible."""
    return put_small(_name(shard, rows_digest, fingerprint), data)


def _name(shard: Location, rows_digest: str, fingerprint: str) -> str:
    return f"{counts_path(shard, fingerprint)}\0{rows_digest}"


def fetch_counts(shards: Sequence[tuple[Location, ShardInfo]], fingerprint: str) -> None:
    """Fetch and keep the counts of these shards, as far as the lists beside their manifests have
    them and they are not kept. Raises TransportError, and DigestError for a file that is not the
    listed one."""
    missing = [
        (shard, info)
        for shard, info in shards
        if kept_counts(shard, info.rows_digest, fingerprint) is None
    ]
    lists = _lists((shard for shard, _ in missing), fingerprint)

    def fetch_one(one: tuple[Location, ShardInfo]) -> None:
        shard, info = one
        listed = lists[_manifest_of(shard).text]
        entry = listed.find(info) if listed else None
        if entry is not None:
            data = fetch_listed(counts_path(shard, fingerprint), entry.digest)
            keep_counts(shard, info.rows_digest, fingerprint, data)

    with ThreadPoolExecutor(FETCHES, "counts") as pool:
        for _ in pool.map(fetch_one, missing):
            pass


def _lists(shards: Iterable[Location], fingerprint: str) -> dict[str, CountsList | None]:
    """The lists of the sets of these shards, by the text of their manifests' locations."""
    manifests = {place.text: place for place in map(_manifest_of, shards)}
    return {text: _read_list(place, fingerprint) for text, place in manifests.items()}


def _read_list(manifest: Location, fingerprint: str) -> CountsList | None:
    try:
        return read_counts_list(counts_list_path(manifest, fingerprint))
    except MissingError:
        return None
    except TransportError:
        raise
    except ShardError as exc:
        _log.warning("%s; its token counts are made again", first_line(exc))
        return None


def _manifest_of(shard: Location) -> Location:
    return shard.sibling(f"{set_name(shard.name)}.json")
