"""Three steps of each stage with the full model on a CPU: time, and peak memory by the forecast.

    python -m benchmarks.full [--steps 3] [--parts 'stage 1' 'stage 2, packed'] [--out FILE]

Weights are random, data are the project's synthetic charts and sums; everything else is the
product's own training, in fp32 on all cores that the process may use. Takes about 15 minutes on two
cores and up to 20 GB of memory: one image of 1,024 px a pass, with checkpointing, is the least that
the full model can do.

Each part (`PARTS`) is a process of its own, so that its peak of resident memory is its own.
`forecast_GB` is what the run printed before it began (`ocrtrain/cost/memory.py`), `start_GB` what
was resident before the first step. The first step has no moments of AdamW yet, and reads the
weights for the first time: the time of a step is the median of those after it.

`--toy` runs all of it on a small model in seconds, in this process; the tests do.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, table, write_result
from benchmarks.gpu import write_ranks
from benchmarks.steps import peak_rss

Numbers = dict[str, Any]

SMALLEST: Numbers = {"micro_batch": 1, "checkpointing": True}

PARTS: dict[str, tuple[str, Numbers]] = {
    "stage 1": ("stage1", {"batch": 2, **SMALLEST}),
    "stage 2": ("stage2", {"batch": 2, **SMALLEST}),
    "stage 2, packed": (
        "stage2",
        {"batch": 1, "pack": True, "seq_len": 1024, "row_images": 2, "checkpointing": True},
    ),
}
"""The stage and the settings of a part. Stage 2 mixes charts and text; of its three steps one is
text, since two of three are of charts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every part, print the table, write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3, help="of each part")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--toy", action="store_true", help="a small model, in this process")
    parser.add_argument("--out", type=Path, help="file of the result (default: results/)")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.part:
        name, folder = asked.part
        measured = measure(name, Path(folder), steps=asked.steps, toy=False)
        Path(folder, "part.json").write_text(json.dumps(measured), "utf-8")
        return
    began = time.perf_counter()
    rows: list[Numbers] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _make_data(folder, toy=asked.toy)
        for name in ["weights", *asked.parts]:
            rows.append({"part": name, **_part(name, folder, steps=asked.steps, toy=asked.toy)})
            print(f"{name}: {json.dumps(rows[-1])}", flush=True)
    minutes = (time.perf_counter() - began) / 60
    about = {**machine(("torch", "transformers")), "minutes": minutes}
    result = {**about, "toy": asked.toy, "parts": rows[1:]}
    shown = ("part", "samples_per_s", "step_s", "peak_GB", "forecast_GB")
    print(table([{name: row[name] for name in shown} for row in rows[1:]]))
    if asked.out is None:
        print(f"written to {write_result('full', result)}")
    else:
        asked.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def _make_data(folder: Path, *, toy: bool) -> None:
    """A few charts and sums, and a tokenizer of the model's vocabulary."""
    from ocrdata.commands import make_shards

    for source in ("charts", "sums"):
        with redirect_stdout(io.StringIO()):
            make_shards.main([source, "--limit", "64", "--out", str(folder / "shards")])
    write_ranks(folder, toy=toy)


def _part(name: str, folder: Path, *, steps: int, toy: bool) -> Numbers:
    """The numbers of a part, by a process of its own unless it is a toy."""
    if toy:
        return measure(name, folder, steps=steps, toy=True)
    words = [sys.executable, "-m", "benchmarks.full", "--steps", str(steps)]
    process = subprocess.run([*words, "--part", name, str(folder)], cwd=ROOT, check=False)
    if process.returncode:
        raise SystemExit(f"{name}: ended with status {process.returncode}")
    found: Numbers = json.loads((folder / "part.json").read_text("utf-8"))
    return found


def measure(name: str, folder: Path, *, steps: int, toy: bool) -> Numbers:
    """The numbers of a part, trained in this process."""
    from benchmarks.gpu_parts import Setting, weights

    setting = Setting(folder, toy)
    if name == "weights":
        return weights(setting)
    stage, changes = PARTS[name]
    config = setting.config(stage, name.replace(" ", "").replace(",", "-"))
    if toy:
        changes = {key: value for key, value in changes.items() if key != "seq_len"}
    config = replace(config, device="cpu", precision="fp32", workers=1, log_samples=True)
    return train(replace(config, **changes), steps)


def train(config: Any, steps: int) -> Numbers:
    """Train as `config` says for so many steps: speed, peak memory, and what was forecast."""
    from benchmarks.gpu_parts import quick_start
    from benchmarks.stepwise import train_while
    from ocrtrain.data import plan_file
    from ocrtrain.run import batch_log, run_log
    from ocrtrain.run.job import Job
    from ocrtrain.state.run_files import read_sealed

    resident: list[float] = []
    times: list[float] = []

    def wanted(job: Job) -> bool:
        resident.append(_resident())
        times.append(time.process_time())
        return job.state.step < steps

    began, run = time.perf_counter(), Path(config.run_folder)
    with quick_start():
        train_while(config, wanted)
    lines = [line for line in run_log.read(run) if "train/dt" in line]
    batches = (run / batch_log.FILE).read_text("utf-8").splitlines()
    samples = [sum(map(len, json.loads(line)["rows"])) for line in batches]
    later = slice(1, None) if len(lines) > 1 else slice(None)
    seconds = [line["train/dt"] for line in lines]
    flops = [0.0, *(line["train/total_flops"] for line in lines)]
    spent = [after - before for before, after in itertools.pairwise(flops)]
    cpu_seconds = [after - before for before, after in itertools.pairwise(times)]
    peak = max(peak_rss(), *resident) / 1e9  # the kernel's own peak may lag by some pages
    forecast = read_sealed(run / plan_file.FILE)["figures"]["memory_bytes"]
    return {
        "steps": len(lines),
        "step_s": statistics.median(seconds[later]),
        "samples_per_s": sum(samples[later]) / sum(seconds[later]),
        "samples_per_cpu_s": sum(samples[later]) / sum(cpu_seconds[later]),
        "tokens_per_s": sum(line["train/tokens"] for line in lines[later]) / sum(seconds[later]),
        "GFLOP_per_s": sum(spent[later]) / sum(seconds[later]) / 1e9,
        "peak_GB": peak,
        "forecast_GB": forecast / 1e9,
        "start_GB": resident[0] / 1e9,
        "each_step": [
            {"seconds": took, "cpu_s": cpu_s, "samples": count, "resident_GB": after / 1e9}
            | _facts(line)
            for took, cpu_s, count, after, line in zip(
                seconds, cpu_seconds, samples, resident[1:], lines, strict=True
            )
        ],
        "all_s": time.perf_counter() - began,
        "load_average": os.getloadavg()[1],
    }


def _facts(line: Numbers) -> Numbers:
    names = ("loss", "images", "tokens", "supervised", "padding", "wait")
    return {name: line[f"train/{name}"] for name in names}


def _resident() -> float:
    """Bytes of this process that are resident now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


if __name__ == "__main__":
    main()
