"""Shard sets of any samples, and what is in them, for the tests of `ocrdata.transfer`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from tests.support.rows import image

Row = dict[str, Any]


def varied(number: int) -> Sample:
    """A sample that is the same for its number: 0 to 3 images, some of which others have too, and
    a meta with missing, null and nested fields."""
    pick = random.Random(f"varied {number}")
    count = pick.choice([0, 1, 1, 2, 3])
    images = [image(pick.choice(["PNG", "JPEG"]), pick.randint(4, 11), 5) for _ in range(count)]
    meta: dict[str, Any] = {"number": number, "page": {"size": pick.choice([1, 2.5, None])}}
    if pick.random() < 0.6:
        meta["rating"] = pick.choice([1, 2, 3, 4, None])
    if pick.random() < 0.8:
        meta["language"] = pick.choice(["de", "en", "Fr", ""])
    if pick.random() < 0.5:
        meta["checked"] = pick.random() < 0.5
    turns = [(f"What is {number}?", f"It is {number}.")] * pick.randint(1, 3)
    return from_turns(turns, images, source=pick.choice(["a", "b"]), meta=meta)


def write_samples(
    folder: Path, name: str, samples: Sequence[Sample], *, per_shard: int = 8, ending: str = ".tar"
) -> str:
    """Write a complete set; returns the path of its manifest."""
    folder.mkdir(exist_ok=True)
    infos = []
    for number, start in enumerate(range(0, len(samples), per_shard)):
        with ShardWriter(folder / f"{name}-{number:03d}{ending}") as writer:
            for at, sample in enumerate(samples[start : start + per_shard], start):
                writer.write(make_key(at), sample)
        infos.append(writer.close())
    path = folder / f"{name}.json"
    write_manifest(path, Manifest(name, tuple(infos), licence=f"licence of {name}"))
    return str(path)


def written(spec: str | Path) -> list[Sample]:
    """The samples of a set, without the origin in their meta."""
    return [without_origin(sample) for sample in open_shards(str(spec))]


def without_origin(sample: Sample) -> Sample:
    meta = {name: value for name, value in sample.meta.items() if name != "origin"}
    return Sample(sample.messages, sample.images, sample.source, meta, sample.key)


def origins(spec: str | Path) -> list[tuple[str, str, str]]:
    """Set, shard and key of origin of each sample of a set."""
    found = (sample.meta["origin"] for sample in open_shards(str(spec)))
    return [(origin["set"], origin["shard"], origin["key"]) for origin in found]


def rows_digests(spec: str | Path) -> list[str]:
    """The digests of the rows of all shards."""
    return [shard.rows_digest for shard in open_shards(str(spec)).shard_set.shards]


def numbers(samples: Iterable[Sample]) -> list[int]:
    """What `varied` made them from."""
    return [sample.meta["number"] for sample in samples]


def images_of(shards: Shards) -> set[bytes]:
    """The digests of all images."""
    return {digest for at in range(len(shards)) for digest in shards.image_digests(at)}
