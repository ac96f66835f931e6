"""Single samples at random, from sets of 128, 256 and 23,700 shards of 1,024: what an index costs.

    python -m benchmarks.random_reads [--before FOLDER] [--runs 5]

The shards of a set are hard links to one shard of small images, so that 24 M samples take no disk;
a reader cannot tell, and finds an index beside each. Every round of every case is a process of its
own, in turns, which opens the set by its manifest and reads 4,000 samples at random places, each
verified. The first round fills the cache folder and is shown apart. `floor` is the CPU time of
verifying and copying alone: a `pread` and a digest per member of one open file. With `--before`,
the same is measured for another checkout of this project, in the same turns. Writes
benchmarks/results/random_reads-DATE.json.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from xxhash import xxh3_128_digest

from benchmarks.common import ROOT, machine, table, write_result
from ocrdata.reading.view import open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.sample import from_turns
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from ocrdata.storage.cache import CACHE_VARIABLE

SHARDS, SHARD, READS = (128, 256, 23_700), 1024, 4_000
WANTED_US = 60.0


def write_set(folder: Path, count: int) -> None:
    """One shard of small charts, `count` times under different names, and the manifest."""
    first = folder / "x-00000.tar"
    with ShardWriter(first) as writer:
        for key in range(SHARD):
            pixels = random.Random(key).randbytes(16 * 16)
            file = io.BytesIO()
            Image.frombytes("L", (16, 16), pixels).save(file, "PNG")
            turns = [(f"What is in image {key}?", "Noise, nothing else.")]
            writer.write(make_key(key), from_turns(turns, [file.getvalue()], source="x", meta={}))
    info = writer.close()
    infos = []
    for number in range(count):
        name = f"x-{number:05d}"
        if number:
            for suffix in (".tar", ".index.parquet"):
                os.link(folder / f"x-00000{suffix}", folder / f"{name}{suffix}")
        infos.append(replace(info, file=f"{name}.tar"))
    write_manifest(folder / "x.json", Manifest("x", tuple(infos)))


def one(folder: Path) -> dict[str, float]:
    """Open a set and read it at random, in this process. Also run by checkouts of other commits."""
    open_shards(str(folder / "x-00000.tar")).members(0)  # imports, and what is done only once
    began, cpu = time.perf_counter(), time.process_time()
    shards = open_shards(str(folder / "x.json"))
    opened = time.process_time() - cpu, time.perf_counter() - began
    pick = random.Random(0)
    places = [pick.randrange(len(shards)) for _ in range(READS)]
    ranges = [
        [(member.offset, member.size) for member in shards.row(at % SHARD).members] for at in places
    ]
    before, cpu = memory(), time.process_time()
    for at in places:
        shards.members(at)
    spent = time.process_time() - cpu
    handle, cpu = os.open(folder / "x-00000.tar", os.O_RDONLY), time.process_time()
    for members in ranges:
        for offset, size in members:
            xxh3_128_digest(os.pread(handle, size, offset))
    floor = time.process_time() - cpu
    return {
        "open ms": 1e3 * opened[1],
        "open ms CPU": 1e3 * opened[0],
        "us CPU": 1e6 * spent / READS,
        "floor": 1e6 * floor / READS,
        "us over floor": 1e6 * (spent - floor) / READS,
        "MB grown": (memory() - before) / 1e6,
        "MB": memory() / 1e6,
    }


def memory() -> int:
    """Peak memory of this process in bytes; `getrusage` would count that of its parent."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10


def child(checkout: Path, folder: Path) -> dict[str, float]:
    """`one` of this file, with the packages of `checkout`."""
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(checkout)!r})\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "import ocrdata\n"
        f"assert Path(ocrdata.__file__).is_relative_to({str(checkout)!r})\n"
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('case', {__file__!r})\n"
        "case = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(case)\n"
        f"print(json.dumps(case.one(Path({str(folder)!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.random_reads", description=__doc__ or "")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args(list(arguments))
    checkouts = {"before": asked.before.resolve()} if asked.before else {}
    checkouts["now"] = ROOT
    with tempfile.TemporaryDirectory() as name:
        os.environ[CACHE_VARIABLE] = f"{name}/cache"
        folders = {count: Path(name) / f"{count}" for count in SHARDS}
        for count, folder in folders.items():
            folder.mkdir()
            write_set(folder, count)
        cases = {
            f"{count:,} shards, {when}": (checkout, folder)
            for count, folder in folders.items()
            for when, checkout in checkouts.items()
        }
        first = {case: child(*found) for case, found in cases.items()}
        rounds = [{case: child(*found) for case, found in cases.items()} for _ in range(asked.runs)]
        blocks = list(Path(name).glob("cache/*/*.blocks"))
        size = statistics.median(file.stat().st_size for file in blocks) / SHARD
        beside = (folders[SHARDS[0]] / "x-00000.index.parquet").stat().st_size / SHARD
    rows = [
        {
            "case": case,
            **{key: statistics.median(found[case][key] for found in rounds) for key in first[case]},
            "least us over floor": min(found[case]["us over floor"] for found in rounds),
            "first us CPU": first[case]["us CPU"],
        }
        for case in cases
    ]
    print(f"{READS:,} samples at random, {asked.runs} runs in turns\n")
    print(table(rows))
    print(
        f"\nwanted: at most {WANTED_US:.0f} us over the floor; bytes per sample: cache {size:.0f}, "
        f"index {beside:.0f}"
    )
    result = {
        **machine(["pyarrow", "xxhash"]),
        "cases": rows,
        "first": first,
        "rounds": rounds,
        "cache_bytes_per_sample": size,
        "index_bytes_per_sample": beside,
    }
    print(f"written to {write_result('random_reads', result)}")
    return 0


if __name__ == "__main__":
    run(main)
