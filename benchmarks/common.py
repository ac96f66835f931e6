"""What the benchmarks share: timing cases in turns, the machine, a table and a JSON file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of each round: wall time, and CPU time of this process on all cores."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median_wall(self) -> float:
        return statistics.median(self.wall)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu)


def interleaved(cases: Mapping[str, Callable[[], object]], runs: int = 5) -> dict[str, Timing]:
    """Time each case `runs` times, in turns, so that other load on the machine affects all alike.

    The first round warms up (caches, imports, thread pools) and is not counted.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for run in range(runs + 1):
        for name, case in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            case()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if run:
                seconds[name].append(spent)
    return {
        name: Timing(tuple(wall for wall, _ in pairs), tuple(cpu for _, cpu in pairs))
        for name, pairs in seconds.items()
    }


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Date, processor, Python, and the versions of `packages`."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as an aligned table with a heading; numbers are right-aligned."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    left = [isinstance(rows[0][name], str) for name in names]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/NAME-DATE.json, replacing one of the same day."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.date.today().isoformat()}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
