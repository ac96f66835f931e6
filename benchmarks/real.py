"""The main job on 753 real charts and 12,000 real chats: does the loss fall, does resuming work?

    python -m benchmarks.real [--steps 300]

The tools make shards and a tokenizer; both stages train with --preset tiny, each stopped halfway
and resumed. Writes the validation losses. Fails if one of them does not fall, or if a step is
missing or repeated. It does not show that the model reads: from random weights, 700 charts are too
few.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, table, write_result
from benchmarks.steps import make_inputs
from ocrtrain.run import run_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = make_inputs(folder)
        rows = [train("stage1", folder, inputs, steps=steps)]
        rows.append(train("stage2", folder, inputs, steps=steps))
    print(table(rows))
    print(write_result("real", {**machine(("torch", "transformers")), "stages": rows}))


def train(stage: str, folder: Path, inputs: dict[str, str], *, steps: int) -> dict[str, Any]:
    """Train one stage, stopped halfway and resumed. Raises SystemExit if a check fails."""
    run = folder / stage
    words = ["-m", f"ocrtrain.{stage}", "--preset", "tiny", "--init", "random",
             "--tokenizer", inputs["tokenizer"], "--shards", inputs["charts"] + "[:700]",
             "--val", inputs["charts"] + "[700:]", "--steps", str(steps), "--wandb", "off",
             "--out", str(run)]  # fmt: skip
    if stage == "stage2":
        words += ["--deepencoder", str(folder / "stage1" / f"deepencoder_{steps:06d}.safetensors"),
                  "--text", inputs["chat"] + "[:10000]",
                  "--val-text", inputs["chat"] + "[10000:10100]"]  # fmt: skip
    began = time.perf_counter()
    for more in (["--stop-at", str(steps // 2)], ["--resume"]):
        subprocess.run([sys.executable, *words, *more], check=True, cwd=ROOT)
    lines = run_log.read(run)
    if [line["step"] for line in lines if "train/loss" in line] != list(range(steps)):
        raise SystemExit(f"{stage}: steps are missing or repeated in the log")
    first, last = lines[0], lines[-1]
    losses = {name: (first[name], last[name]) for name in first if name.endswith("loss")}
    if not all(after < before for before, after in losses.values()):
        raise SystemExit(f"{stage}: a validation loss did not fall: {losses}")
    return {
        "stage": stage,
        "steps": steps,
        "seconds": time.perf_counter() - began,
        **{f"{name} {when}": value for name, pair in losses.items()
           for when, value in zip(("before", "after"), pair, strict=True)
           if name in ("val/loss", "val/charts_loss")},
        "val/image_gain": last["val/image_gain"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
