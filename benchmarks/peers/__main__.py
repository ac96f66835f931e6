"""Loaders side by side on the same real samples, each in its own format and by its own rules.

    python -m pip install torch==2.13.0
    python -m pip install --no-deps -r benchmarks/requirements-peers.txt
    python -m benchmarks.peers [--runs 5] [--samples 12000] [--only ours --only litdata]

The 753 real charts, repeated under other keys to 12,000 samples, and as many real chats, are
written and read by each loader; in every round each loader's parts run in processes of their own,
loaders in turn and each round begun by another one. Page caches are warm. Times leave imports out.

write      samples in memory to files: JSON made, files closed (ours also synced, digested, indexed)
raw        every byte of JSON and image delivered, counted; ours with digests verified, none of the
           others verifies but ArrayRecord; "ours, views" gives views of what was read in place of
           bytes of their own, the one difference to "ours"; with 2 workers in batches
           of 64, workers' start included (ours: threads; grain: spawned processes; the others:
           forked ones)
memory     peak PSS of all processes while half of that is read
first      from nothing opened to sample 10,800
resume     from nothing opened to the first batch of 64 after the half, 2 workers; the state each
           loader has, else replayed
Pillow     to uint8 1,024 x 1,024 with Pillow's pad, in the workers, batches of 10, stacked
our decode decoded in the workers as we do, letterboxed later on the device: the loader alone counts
silent     one flipped bit in each of 200 images: how many were served changed without an error

Writes benchmarks/results/peers-DATE.json.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table, write_result
from benchmarks.peers.case import PARTS, PEERS
from benchmarks.peers.report import COLUMNS, lines, medians, remarks, values
from benchmarks.peers.run import Outcome, run_parts
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_time

OWN = ("pillow", "numpy", "xxhash", "pyarrow", "torch")
"""Packages whose versions count for every loader."""

TOGETHER = (("write",), ("read", "pixels"), ("resume",), ("flips",))
"""Parts that share a process, so that its imports are paid for once."""

FLOOR = "cat"
HEADINGS = tuple(COLUMNS)


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--only", action="append", choices=PEERS, help="this loader; repeat")
    parser.add_argument("--parts", action="append", choices=PARTS, help="this part; repeat")
    parser.add_argument("--no-result", action="store_true", help="print the table only")
    asked = parser.parse_args(list(arguments))
    parts = [part for part in PARTS if part in (asked.parts or PARTS) or part == "write"]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        rounds = measure(Path(name), asked.only or list(PEERS), parts, asked=asked)
    found = medians(rounds)
    print(f"\n{asked.samples:,} charts and as many chats, {asked.runs} runs in turns, medians\n")
    for headings in (HEADINGS[:6], HEADINGS[6:]):
        shown = {
            loader: {heading: row[heading] for heading in headings if heading in row}
            for loader, row in found.items()
        }
        print(table(lines({loader: row for loader, row in shown.items() if row})), "\n")
    for remark in remarks(rounds):
        print(remark)
    result = describe(rounds, found, asked)
    if not asked.no_result:
        print(f"written to {write_result('peers', result)}")
    print(f"took {human_time(time.perf_counter() - began)}")
    return 0


def measure(
    folder: Path, loaders: Sequence[str], parts: Sequence[str], *, asked: Any
) -> dict[str, list[Outcome]]:
    """All rounds: in each, every loader does its parts. Flipped bits need one round only."""
    rounds: dict[str, list[Outcome]] = {loader: [] for loader in loaders}
    floor: list[Outcome] = []
    for number in range(asked.runs):
        turn = number % len(loaders)
        for loader in [*loaders[turn:], *loaders[:turn]]:
            for group in TOGETHER:
                some = [part for part in group if part in parts]
                if not some or (group == ("flips",) and number):
                    continue
                began = time.perf_counter()
                outcome = run_parts(loader, some, folder, samples=asked.samples)
                rounds[loader].append(outcome)
                took = time.perf_counter() - began
                note(f"run {number + 1}: {loader}: {' '.join(some)}: {took:.1f} s {outcome.error}")
            if loader == "ours":
                floor.append(cat(folder, asked.samples))
    return {**rounds, FLOOR: floor} if floor else rounds


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cat(folder: Path, samples: int) -> Outcome:
    """The floor: our tars to nowhere, and into one other file."""
    names = sorted(map(str, (folder / "ours" / "charts").glob("*.tar")))
    size = sum(os.path.getsize(name) for name in names)
    rows = {}
    for row, target in (("raw charts", os.devnull), ("write charts", str(folder / "copy"))):
        os.sync()
        began = time.perf_counter()
        with open(target, "wb") as file:
            subprocess.run(["cat", *names], stdout=file, check=True)
        seconds = time.perf_counter() - began
        rows[row] = {"seconds": seconds, "samples": samples, "bytes": size}
    (folder / "copy").unlink()
    return Outcome(rows)


def describe(
    rounds: dict[str, list[Outcome]], found: dict[str, dict[str, float]], asked: Any
) -> dict[str, Any]:
    """Versions, medians, and every run's number."""
    packages = {name for loader in rounds for name in PEERS.get(loader, ("", ()))[1]}
    return {
        **machine(sorted(name for name in packages.union(OWN) if installed(name))),
        "runs": asked.runs,
        "samples": asked.samples,
        "medians": found,
        "every_run": {
            loader: {heading: values(outcomes, heading) for heading in HEADINGS}
            for loader, outcomes in rounds.items()
        },
        "rows": {
            loader: [outcome.rows for outcome in outcomes] for loader, outcomes in rounds.items()
        },
        "remarks": remarks(rounds),
    }


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    run(main)
