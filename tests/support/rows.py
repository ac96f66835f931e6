"""Samples, tars and damage for the tests of `ocrdata`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from ocrdata.sample import Sample, from_turns
from ocrdata.shards.manifest import Manifest, ShardInfo, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter


@cache
def image(kind: str, width: int = 8, height: int = 6) -> bytes:
    """The bytes of a small image in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (width % 256, 90, height % 256)).save(buffer, kind)
    return buffer.getvalue()


def sample(number: int, kinds: Iterable[str] = ("PNG",)) -> Sample:
    """A sample that is unique for its number."""
    images = [image(kind, 8 + number % 50, 6 + at) for at, kind in enumerate(kinds)]
    turns = [(f"What is {number}?", f"It is {number}.")]
    return from_turns(turns, images, source="numbers", meta={"number": number})


def write_shard(path: Path, samples: Iterable[Sample], start: int = 0) -> ShardInfo:
    with ShardWriter(path) as writer:
        for number, one in enumerate(samples, start):
            writer.write(make_key(number), one)
    return writer.close()


def write_set(
    folder: Path,
    name: str,
    counts: Iterable[int],
    kinds: Iterable[str] = ("PNG",),
    ending: str = ".tar",
) -> Manifest:
    """A complete set with a manifest; shard K holds counts[K] samples, numbered consecutively."""
    infos, start = [], 0
    for shard, count in enumerate(counts):
        rows = [sample(number, kinds) for number in range(start, start + count)]
        infos.append(write_shard(folder / f"{name}-{shard:03d}{ending}", rows, start))
        start += count
    manifest = Manifest(
        name, tuple(infos), provenance={"command": f"python tools/make_shards.py {name}"}
    )
    write_manifest(folder / f"{name}.json", manifest)
    return manifest


def write_tar(
    path: Path, files: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """Write any files as a tar."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Valid samples: any texts, up to four images of any format."""
    kinds = draw(
        st.lists(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), max_size=4)
    )
    sizes = draw(st.lists(st.integers(1, 40), min_size=len(kinds), max_size=len(kinds)))
    images = [image(kind, size, 41 - size) for kind, size in zip(kinds, sizes, strict=True)]
    turns = draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
    return from_turns(turns, images, source=draw(texts), meta={"note": draw(texts)})
