"""All files that are damaged: the targets of `tests.support.faulttargets`, compressed shards, and
the sealed files of a training run."""

from __future__ import annotations

from pathlib import Path

from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.manifest import Manifest, ShardInfo, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from ocrtrain.settings.saved_config import from_json, to_json
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support import small
from tests.support.compressed import chat
from tests.support.fault import Reading, Span, Target
from tests.support.faulttargets import ANY, TARGETS, check_all, read_bare, read_set, without_index

PACKED = "x-000.tar.zst"


def _write_packed(path: Path, numbers: range) -> ShardInfo:
    with ShardWriter(path, frames=ZstdOptions(4000, 3)) as writer:
        for number in numbers:
            writer.write(make_key(number), chat(number))
    return writer.close()


def make_packed(folder: Path) -> None:
    """Two compressed shards with a manifest; the first has several frames, each with several
    samples."""
    infos = (
        _write_packed(folder / PACKED, range(12)),
        _write_packed(folder / "x-001.tar.zst", range(12, 15)),
    )
    write_manifest(folder / "x.json", Manifest("x", infos, totals={"rows": 15}))
    assert len(frames(folder)) > 2, "too few frames to swap"


def make_packed_bare(folder: Path) -> None:
    """One compressed shard without index and manifest."""
    make_packed(folder)
    for path in [folder / "x.json", index_path(folder / PACKED).path, *folder.glob("x-001*")]:
        path.unlink()


def frames(folder: Path) -> list[Span]:
    """The frames of the first shard, but not its seek table."""
    index = read_index(index_path(folder / PACKED))
    assert index.frames is not None
    starts = index.frames.starts
    return [(str(at), starts[at], starts[at + 1]) for at in range(len(starts) - 2)]


def make_sealed(folder: Path) -> None:
    """The plan and config of a training run."""
    write_sealed(folder / "plan.json", {"version": 1, "sources": [{"name": "x", "size": 9}]})
    write_sealed(folder / "config.json", to_json(small.CONFIG))


def read_run_files(folder: Path) -> Reading:
    """Read them as a resumed run does."""
    return {
        "plan": read_sealed(folder / "plan.json"),
        "config": from_json(read_sealed(folder / "config.json")),
    }


OF_FRAMES = (*ANY, "cut at member", "swapped")

MATRIX: tuple[Target, ...] = (
    *TARGETS,
    Target("tar.zst", PACKED, make_packed, read_set, OF_FRAMES, PACKED, by_sample=True,
           spans=frames),
    Target("tar.zst, checked", PACKED, make_packed, check_all, OF_FRAMES, PACKED,
           must_detect=True, spans=frames),
    Target("tar.zst without index", PACKED, make_packed_bare, read_bare,
           ("cut", "cut at member"), PACKED, spans=without_index(frames)),
    Target("tar.zst index", "x-000.index.parquet", make_packed, read_set, ANY, "x-000"),
    Target("run plan.json", "plan.json", make_sealed, read_run_files, ANY, "plan.json"),
    Target("run config.json", "config.json", make_sealed, read_run_files, ANY, "config.json"),
)  # fmt: skip
