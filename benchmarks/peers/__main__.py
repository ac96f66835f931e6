"""Loaders side by side on the same real samples, each with its own format and recommended usage.

    python -m pip install torch==2.13.0
    python -m pip install --no-deps -r benchmarks/requirements-peers.txt
    python -m benchmarks.peers [--runs 5] [--samples 12000] [--only ours --only litdata]

Each loader writes and reads the 753 real charts, repeated under other keys to 12,000 samples, and
as many real chats. In every round each loader's parts run in their own processes, the loaders take
turns, and another loader goes first. Page caches are warm. Times do not include imports.

write      from samples in memory to closed files, including making the JSON (ours also syncs,
           digests and indexes)
raw        every byte of JSON and image is delivered and counted. Ours verifies digests, of the
           others only ArrayRecord does. "ours, views" returns views of the read buffer instead of
           copies, and is otherwise the same as "ours". With 2 workers: batches of 64, including
           the start of the workers (ours: threads; grain: spawned processes; others: forked ones)
memory     peak PSS of all processes while half of that is read
first      from nothing opened to sample 10,800
resume     from nothing opened to the first batch of 64 after one half, 2 workers; from the loader's
           saved state, or by replaying if it has none
Pillow     uint8 1,024 x 1,024 with Pillow's pad, made by the workers, batches of 10, stacked
our decode every loader's workers decode as ours do (letterboxing is left to the device), so that
           only the loaders differ
silent     one flipped bit in each of 200 images: how many were served changed, or left out, without
           an error

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
"""Packages whose versions affect every loader."""

TOGETHER = (("write",), ("read", "pixels"), ("resume",), ("flips",))
"""Parts that run in one process, which imports its packages once."""

FLOOR = "cat"
HEADINGS = tuple(COLUMNS)


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument(
        "--only", action="append", choices=PEERS, help="only this loader; may be repeated"
    )
    parser.add_argument(
        "--parts", action="append", choices=PARTS, help="only this part; may be repeated"
    )
    parser.add_argument("--no-result", action="store_true", help="print the table, write no file")
    asked = parser.parse_args(list(arguments))
    parts = [part for part in PARTS if part in (asked.parts or PARTS) or part == "write"]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        rounds = measure(Path(name), asked.only or list(PEERS), parts, asked=asked)
    found = medians(rounds)
    print(f"\n{asked.samples:,} charts and as many chats, {asked.runs} rounds in turns, medians\n")
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
    """Run all rounds. In each, every loader runs its parts; flips run in the first round only."""
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
                what = f"round {number + 1}: {loader}: {' '.join(some)}"
                note(f"{what}: {took:.1f} s {outcome.error}")
            if loader == "ours":
                floor.append(cat(folder, asked.samples))
    return {**rounds, FLOOR: floor} if floor else rounds


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cat(folder: Path, samples: int) -> Outcome:
    """The floor: `cat` of our tars to /dev/null, and to another file."""
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
    """The result file: versions, medians, and the numbers of every round."""
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
