"""One client reading one set once, in a process of its own, for `benchmarks.afar`.

    python -m benchmarks.afar_clients CASE '{"url": ..., "folder": ..., ...}'

Prints one JSON object. Seconds are wall time from nothing opened; they exclude imports and what a
process does only once: a small set is read first, from the server itself. Every sample is counted;
if one is missing, the process fails.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BATCH = 64
DEPTH = 32
PIECE = 1 << 20
RANDOM = 3_000


@dataclass(frozen=True)
class Job:
    """What to read: a set of `count` samples at `url` (a folder, on the disk or at a server), as
    `small` is, a set of 64. `scratch` is a folder for whatever the client keeps."""

    url: str
    small: str
    scratch: str
    count: int


Result = dict[str, Any]


def timed(action: Callable[[], int], expected: int) -> Result:
    began, cpu = time.perf_counter(), time.process_time()
    found = action()
    result = {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "samples": found,
    }
    if found != expected:
        raise SystemExit(f"{found:,} samples were read, {expected:,} expected")
    return result


def drain(samples: Iterable[object]) -> int:
    return sum(1 for _ in samples)


# --- the floor: the client library alone, nothing verified


def raw_pieces(job: Job) -> Result:
    """Every byte of every tar, in ranges of 1 MiB, eight at a time."""
    import obstore

    def whole(url: str, count: int) -> int:
        store, prefix, sizes = _tars(url)
        ranges = [
            (name, start, min(size, start + PIECE))
            for name, size in sizes
            for start in range(0, size, PIECE)
        ]

        def get(one: tuple[str, int, int]) -> int:
            name, start, stop = one
            return len(obstore.get_range(store, prefix + name, start=start, end=stop))

        with ThreadPoolExecutor(8) as threads:
            read = sum(threads.map(get, ranges))
        return count if read == sum(size for _, size in sizes) else 0

    whole(job.small, 64)
    return timed(lambda: whole(job.url, job.count), job.count)


def raw_random(job: Job) -> Result:
    """Ranges of the mean size of a sample at random, 32 at a time."""
    import obstore

    store, prefix, sizes = _tars(job.url)
    size = sum(size for _, size in sizes) // job.count
    chance = random.Random(0)
    ranges = [
        (name, chance.randrange(length - size)) for name, length in chance.choices(sizes, k=RANDOM)
    ]

    def get(one: tuple[str, int]) -> int:
        found = obstore.get_range(store, prefix + one[0], start=one[1], length=size)
        return int(len(found) == size)

    def run() -> int:
        with ThreadPoolExecutor(DEPTH) as threads:
            return sum(threads.map(get, ranges))

    return timed(run, RANDOM)


def _tars(url: str) -> tuple[Any, str, list[tuple[str, int]]]:
    """A store, the path of a set in it, and the names and sizes of its tars."""
    import obstore
    from obstore.store import HTTPStore

    parts = urlsplit(url)
    store = HTTPStore.from_url(
        f"{parts.scheme}://{parts.netloc}", client_options={"allow_http": True}
    )
    prefix = parts.path.strip("/") + "/"
    manifest = json.loads(bytes(obstore.get(store, f"{prefix}charts.json").bytes()))
    return store, prefix, [(shard["file"], shard["bytes"]) for shard in manifest["shards"]]


# --- ours: every sample verified


def _open(folder: str) -> Any:
    from ocrdata.reading.view import open_shards

    return open_shards(f"{folder}/charts.json")


def in_order(job: Job) -> Result:
    drain(_open(job.small).iter_members())
    return timed(lambda: drain(_open(job.url).iter_members()), job.count)


def at_random(job: Job) -> Result:
    """Single samples, `DEPTH` at a time; the indexes are in the cache."""
    shards = _open(job.url)
    drain(shards.row(at) for at in range(0, job.count, 1024))
    places = random.Random(0).sample(range(job.count), min(RANDOM, job.count))

    def run() -> int:
        with ThreadPoolExecutor(DEPTH) as threads:
            return drain(threads.map(shards.members, places))

    return timed(run, len(places))


def in_blocks(job: Job) -> Result:
    """One epoch in the order `feistel-blocks-1`, in batches made by two threads, as in training."""
    sum(_batches(job.small, 64))
    return timed(lambda: sum(_batches(job.url, job.count)), job.count)


def resume(job: Job) -> Result:
    """The same, from nothing opened to the first batch after one half."""
    sum(_batches(job.small, 64))
    return timed(lambda: next(_batches(job.url, job.count, first=job.count // 2 // BATCH)), BATCH)


def _batches(url: str, count: int, *, first: int = 0) -> Iterator[int]:
    """The samples of each batch, from a step on."""
    from ocrdata.planning.blocks import blocks_of
    from ocrdata.planning.fetch_ahead import FetchAhead
    from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
    from ocrdata.reading.prefetch import Prefetcher, whole

    shards = _open(url)
    blocks = blocks_of(shards)
    source = PlanSource("charts", len(shards), Fraction(1), shards.spec, shards.digest, blocks)
    plan = Plan([source], PlanSettings(batch=BATCH, steps=count // BATCH, seed=1, shuffle="blocks"))
    ahead = FetchAhead(plan, [shards], start=first)

    def make(step: int) -> int:
        ahead.begin(step)
        read = sum(1 for row in plan.rows(step) for one in row if shards.members(one.position))
        ahead.end(step)
        return read

    return Prefetcher(whole(make), first, stop=plan.steps, workers=2)


def first(job: Job) -> Result:
    """From nothing opened to the sample at 90 %."""
    _open(job.small).members(0)
    return timed(lambda: drain([_open(job.url).members(job.count * 9 // 10)]), 1)


def two_workers(job: Job) -> Result:
    """All samples, half of them in each of two processes; the parent measures their memory."""
    cuts = [job.count * part // 2 for part in range(3)]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_half, args=(job.url, *cut)) for cut in pairwise(cuts)]

    def run() -> int:
        for process in workers:
            process.start()
        for process in workers:
            process.join()
        return job.count if not any(process.exitcode for process in workers) else 0

    return timed(run, job.count)


def _half(url: str, start: int, stop: int) -> None:
    assert drain(_open(url)[start:stop].iter_members()) == stop - start


# --- peers, as their documentation says


def webdataset(job: Job) -> Result:
    drain(_webdataset(job.small))
    return timed(lambda: drain(_webdataset(job.url)), job.count)


def webdataset_first(job: Job) -> Result:
    drain(_webdataset(job.small))
    at = job.count * 9 // 10
    return timed(lambda: drain(itertools.islice(_webdataset(job.url), at, at + 1)), 1)


def _webdataset(folder: str) -> Iterable[object]:
    import webdataset as wds

    warnings.simplefilter("ignore", ResourceWarning)
    number = 1 if folder.rstrip("/").endswith("small") else _shards()
    files = [f"{folder}/charts-{shard:03d}.tar" for shard in range(number)]
    return wds.WebDataset(files, shardshuffle=False)  # type: ignore[no-any-return]  # no types


def _shards() -> int:
    return int(os.environ["AFAR_SHARDS"])


def mosaic(job: Job) -> Result:
    drain(_mosaic(job.small, f"{job.scratch}/small"))
    return timed(lambda: drain(_mosaic(job.url, f"{job.scratch}/all")), job.count)


def mosaic_first(job: Job) -> Result:
    drain(_mosaic(job.small, f"{job.scratch}/small"))
    at = job.count * 9 // 10
    return timed(lambda: drain([_mosaic(job.url, f"{job.scratch}/all")[at]]), 1)


def _mosaic(folder: str, local: str) -> Any:
    from benchmarks.peers import mosaic as peer

    if "://" not in folder:
        return peer.dataset(Path(folder), BATCH)
    return peer.StreamingDataset(remote=folder, local=local, shuffle=False, batch_size=BATCH)


def litdata(job: Job) -> Result:
    drain(_litdata(job.small))
    return timed(lambda: drain(_litdata(job.url)), job.count)


def litdata_first(job: Job) -> Result:
    drain(_litdata(job.small))
    return timed(lambda: drain([_litdata(job.url)[job.count * 9 // 10]]), 1)


def _litdata(folder: str) -> Any:
    from litdata import StreamingDataset

    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]} if "://" in folder else {}
    return StreamingDataset(folder, storage_options=options, shuffle=False)


def spdl(job: Job) -> Result:
    drain(_spdl(job.small))
    return timed(lambda: drain(_spdl(job.url)), job.count)


def _spdl(folder: str) -> Iterable[object]:
    """Its tar iterator over whole tars, which its pipeline fetches four at a time: it has no client
    of its own. Two members are a sample."""
    import urllib.request

    from spdl.io import iter_tarfile
    from spdl.pipeline import PipelineBuilder

    number = 1 if folder.rstrip("/").endswith("small") else _shards()
    files = [f"{folder}/charts-{shard:03d}.tar" for shard in range(number)]

    def fetch(file: str) -> bytes:
        if "://" not in file:
            return Path(file).read_bytes()
        with urllib.request.urlopen(file) as answer:
            data: bytes = answer.read()
        return data

    pipeline = (PipelineBuilder().add_source(files).pipe(fetch, concurrency=4).add_sink(2)).build(
        num_threads=4
    )
    with pipeline.auto_stop():
        for tar in pipeline:
            members = iter_tarfile(tar)
            yield from zip(members, members, strict=True)


def lancedb(job: Job) -> Result:
    """In the order of the table."""
    drain(_lance(job.small, shuffle=False))
    return timed(lambda: drain(_lance(job.url, shuffle=False)), job.count)


def lancedb_clumps(job: Job) -> Result:
    """Shuffled by groups of 16 rows."""
    drain(_lance(job.small, shuffle_clump_size=16))
    return timed(lambda: drain(_lance(job.url, shuffle_clump_size=16)), job.count)


def lancedb_first(job: Job) -> Result:
    at = job.count * 9 // 10
    drain(_lance_table(job.small).take_offsets([0]).to_list())
    return timed(lambda: drain(_lance_table(job.url).take_offsets([at]).to_list()), 1)


def _lance(folder: str, **options: Any) -> Iterable[object]:
    from lancedb.streaming import StreamingDataset

    found: Iterable[object] = StreamingDataset(_lance_table(folder), **options)
    return found


def _lance_table(folder: str) -> Any:
    import lancedb

    options = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"}
    return lancedb.connect(folder, storage_options=options).open_table("charts")


def write_lance(source: Any, folder: Path) -> None:
    """The samples of a `benchmarks.peers.peer.Source` as a table."""
    import lancedb
    import pyarrow as pa

    schema = pa.schema([("json", pa.binary()), ("image", pa.binary())])

    def batches() -> Iterable[Any]:
        for keys in source.shards():
            columns = zip(*map(source.pair, keys), strict=True)
            yield pa.record_batch([pa.array(one, pa.binary()) for one in columns], schema=schema)

    lancedb.connect(str(folder)).create_table("charts", batches(), schema=schema)


CASES: dict[str, Callable[[Job], Result]] = {
    case.__name__: case
    for case in (
        raw_pieces, raw_random, in_order, at_random, in_blocks, resume, first, two_workers,
        webdataset, webdataset_first, mosaic, mosaic_first, litdata, litdata_first, spdl,
        lancedb, lancedb_clumps, lancedb_first,
    )
}  # fmt: skip


def main() -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a client prints goes to standard error
    result = CASES[sys.argv[1]](Job(**json.loads(sys.argv[2])))
    print(json.dumps(result), file=channel, flush=True)
    os._exit(0)  # without waiting for the threads and caches of clients


if __name__ == "__main__":
    main()
