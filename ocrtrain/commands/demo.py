"""The main job on synthetic charts and sums, from nothing to a model that answers: `make demo`.

It runs the commands that anyone would type, prints them, and ends with a table. Rerun after a stop,
it continues where it was.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocrdata.errors import OcrError
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_time
from ocrtrain.run import run_log

CHARTS, VALIDATION = 8_000, 200
SUMS = 4_000


def main(arguments: Sequence[str]) -> int:
    """Make shards and a tokenizer, train both stages, evaluate, and print the results."""
    parser = Parser(prog="tools/demo.py", description=__doc__ or "")
    parser.add_argument("--shards", default="shards", help="folder for the shards")
    parser.add_argument("--runs", default="runs/demo", help="folder for the two runs")
    args = parser.parse_args(list(arguments))
    shards, runs = Path(args.shards), Path(args.runs)
    started = time.perf_counter()
    charts, sums = shards / "demo-charts.json", shards / "demo-sums.json"
    tokenizer = shards / "demo-tokenizer.json"
    train, val = f"{charts}[:-{VALIDATION}]", f"{charts}[-{VALIDATION}:]"

    for source, rows in (("charts", CHARTS), ("sums", SUMS)):
        command(
            "ocrdata.commands.make_shards",
            source,
            "--limit",
            rows,
            "--out",
            shards,
            "--name",
            f"demo-{source}",
        )
    if not tokenizer.exists():
        command(
            "ocrdata.commands.train_tokenizer", "--shards", f"{charts}[:2000]", f"{sums}[:2000]",
            "--vocab-size", 512, "--out", tokenizer,
        )  # fmt: skip
    common = ["--preset", "tiny", "--init", "random", "--tokenizer", tokenizer, "--shards", train,
              "--val", val, "--wandb", "off", "--resume"]  # fmt: skip
    command("ocrtrain.stage1", *common, "--out", runs / "stage1")
    command(
        "ocrtrain.stage2", *common, "--out", runs / "stage2",
        "--deepencoder", encoder(runs / "stage1"),
        "--text", f"{sums}[:-100]", "--val-text", f"{sums}[-100:]",
    )  # fmt: skip
    command(
        "ocrtrain.evaluate", "--checkpoint", runs / "stage2", "--shards", val, "--exchange",
        "--max-new-tokens", 16, "--out", runs / "answers.jsonl",
    )  # fmt: skip
    print(report(runs, seconds=time.perf_counter() - started))
    return 0


def command(module: str, *words: object) -> None:
    """Run a command by its module."""
    execute(["-m", module, *map(str, words)])


def execute(words: list[str]) -> None:
    """Print a command as one would type it, and run it. Raises OcrError if it fails."""
    print(f"\n$ python {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, *words], check=False).returncode
    if status:
        raise OcrError(
            f"the command above failed with status {status}; fix the cause, then rerun the demo"
        )


def encoder(run_folder: Path) -> Path:
    """The DeepEncoder file that stage 1 wrote when it ended."""
    return sorted(run_folder.glob("deepencoder_*.safetensors"))[-1]


def report(runs: Path, *, seconds: float) -> str:
    """The table at the end: losses, accuracy per kind of question, gain, and what to type next."""
    summary = json.loads((runs / "answers.summary.json").read_text())
    lines = ["", "val loss", *(f"  {stage:<10} {_losses(runs / stage)}" for stage in
                               ("stage1", "stage2"))]  # fmt: skip
    lines += ["", f"{'accuracy':<12}{'own image':>12}{'swapped':>12}{'questions':>12}"]
    lines += [_row(kind, value) for kind, value in summary["scores"]["kinds"].items()]
    lines += [_row("all kinds", summary["scores"]["all"]), ""]
    gain = summary["validation"]["val/image_gain"]
    lines += [
        f"image gain   {gain:.3f} nats a token: what the sample's own image is worth",
        f"took         {human_time(seconds)}",
        f"run folders  {runs}/stage1, {runs}/stage2; every answer is in {runs}/answers.jsonl",
        "next         ask it about a chart of your own:",
        f"               python -m ocrtrain.ask --checkpoint {runs}/stage2 --image FILE "
        '"What is the title?"',
        "             or make shards of real data, and train on those:",
        "               python tools/make_shards.py chartqa",
    ]
    return "\n".join(lines)


def _losses(run_folder: Path) -> str:
    """First and last validation loss of a run."""
    values = [line["val/loss"] for line in run_log.read(run_folder) if "val/loss" in line]
    return (
        f"{values[0]:.3f} before training, {values[-1]:.3f} at the end ({len(values)} validations)"
    )


def _row(kind: str, value: dict[str, Any]) -> str:
    swapped = f"{value['exchanged']['exact']:.1%}" if "exchanged" in value else "-"
    return f"{kind:<12}{value['exact']:>12.1%}{swapped:>12}{value['answers']:>12,}"


if __name__ == "__main__":
    run(main)
