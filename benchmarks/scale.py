"""Planning at the size of all FineVision: 24.3 M samples in 185 sources, for 1,024 ranks.

    python -m benchmarks.scale [--runs 5]

The indexes are simulated: source sizes as uneven as the real ones (a few with millions of samples,
many with thousands), shards of 1,024, token lengths and images drawn with seeds. The planning is
real: `Plan` with its order, mixture and packing. Each round of each case is a process of its own,
in turns. It measures the planning time, the time to locate the samples of one rank at a random step
(down to the shard and the position in it), and its peak memory including libraries. If rows are
packed, planning includes the totals of the whole training run (`ocrdata.planning.totals`), as in
`tools/plan.py`; simulating the lengths is not timed. Writes benchmarks/results/scale-DATE.json.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.common import ROOT, machine, table, write_result
from ocrdata.planning.blocks import Blocks, BlockSize
from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
from ocrdata.planning.totals import compute
from ocrdata.runtime.cli import Parser, run

SAMPLES, SOURCES, RANKS, SHARD = 24_300_000, 185, 1024, 1024
SEQ_LEN = 8192
LOOKUPS = 1000
WANTED = {"plan_s": 10.0, "packed_s": 60.0, "memory_mb": 500.0, "locate_ms": 1.0}

PACKED = {"mix_by": "batch", "batch": RANKS, "pack_window": 4096, "row_images": 32}

CASES: dict[str, dict[str, Any]] = {
    "batches of one source": {"mix_by": "batch", "batch": 8 * RANKS},
    "every row its own source": {"mix_by": "sample", "batch": 8 * RANKS},
    "packed to 8,192": PACKED,
    "batches, by blocks": {"mix_by": "batch", "batch": 8 * RANKS, "shuffle": "blocks"},
    "packed, by blocks": {**PACKED, "shuffle": "blocks"},
}
"""The first three with a full permutation; the last two in the order that new runs have."""


def sizes() -> list[int]:
    """Samples of each source: log-normal like FineVision's, with the sum SAMPLES."""
    drawn = np.random.default_rng(0).lognormal(0, 2.0, SOURCES)
    whole = np.maximum(1000, drawn / drawn.sum() * SAMPLES).astype(int)
    whole[np.argmax(whole)] += SAMPLES - int(whole.sum())
    return [int(size) for size in whole]


def simulated(size: int, seed: int) -> SampleLengths:
    """Lengths of samples with one image and a few turns: 330 to 8,192 ids, 600 on average."""
    drawn = np.random.default_rng(seed)
    lengths = np.minimum(290 + drawn.lognormal(5.3, 0.9, size), SEQ_LEN).astype(np.int32)
    return SampleLengths(
        lengths=lengths,
        supervised=((lengths - 280) // 2).astype(np.int32),
        images=np.ones(size, np.uint16),
        bytes=np.full(size, 40_000, np.uint32),
        truncated=np.empty(0, np.int64),
        truncated_tokens=np.empty(0, np.int32),
        truncated_turns=np.empty(0, np.int32),
        unfit=np.empty(0, np.int64),
    )


def blocks(size: int) -> Blocks:
    """The blocks of charts of 38 kB; those of full shards have no other boundaries."""
    starts = np.append(np.arange(0, size, 16), size).astype(np.int32)
    return Blocks(BlockSize(16, 2048), starts)


def one(case: str) -> dict[str, float]:
    """Plan one case once, in this process. Returns what was measured."""
    options = CASES[case]
    sources = [
        PlanSource(f"source-{number:03d}", size, Fraction(size), blocks=blocks(size))
        for number, size in enumerate(sizes())
    ]
    packed = "pack_window" in options
    lengths = [simulated(s.size, n) for n, s in enumerate(sources)] if packed else []
    ids = sum(int(found.lengths.sum()) for found in lengths)
    rows = ids // SEQ_LEN if packed else SAMPLES
    recipe = PlanSettings(steps=rows // options["batch"], seed=1, seq_len=SEQ_LEN, **options)
    began = time.perf_counter()
    plan = Plan(sources, recipe, lengths)
    totals = compute(plan, rows_per_pass=1) if packed else None
    planned = time.perf_counter() - began
    pick, each, spent = random.Random(0), recipe.batch // RANKS, []
    for _ in range(LOOKUPS):
        step, rank = pick.randrange(plan.steps), pick.randrange(RANKS)
        began = time.perf_counter()
        for row in plan.rows(step, range(rank * each, (rank + 1) * each)):
            for place in row:
                divmod(place.position, SHARD)  # (shard, position in it): all shards are full
        spent.append(time.perf_counter() - began)
    return {
        "plan_s": planned,
        "locate_ms": 1e3 * statistics.median(spent),
        "locate_p99_ms": 1e3 * sorted(spent)[-LOOKUPS // 100],
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "steps": plan.steps,
        "padding": totals.padding if totals else 0.0,
    }


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.scale", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help="measure this case once and print JSON")
    asked = parser.parse_args(list(arguments))
    if asked.case:
        print(json.dumps(one(asked.case)))
        return 0
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(asked.runs):
        for case, results in found.items():
            words = [sys.executable, "-m", "benchmarks.scale", "--case", case]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout))
    rows = [
        {"case": case, **{k: statistics.median(r[k] for r in results) for k in results[0]}}
        for case, results in found.items()
    ]
    print(f"{SAMPLES:,} samples, {SOURCES} sources, {RANKS:,} ranks, {asked.runs} runs in turns\n")
    print(table(rows))
    print(f"\nwanted: {WANTED}")
    result = {**machine(["numpy", "numba"]), "wanted": WANTED, "cases": rows, "runs": found}
    print(f"written to {write_result('scale', result)}")
    return 0


if __name__ == "__main__":
    run(main)
