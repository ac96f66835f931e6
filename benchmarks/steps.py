"""Training steps: real tokens per second and peak memory of both stages, and the loss head.

    python -m benchmarks.steps [--runs 5] [--steps 30]

Both stages train with --preset tiny on the real charts and chats, each in its own process, in
turns. The head is measured at the full model's size: 2,048 positions of width 1,280, a vocabulary
of 65,537, an eighth of the positions supervised. "plain" computes all logits at once, as the
original does; "ours" is `OcrModel.head_loss`. The peak memory of the head is that of its process,
minus what the process used before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, ROOT, machine, table, write_result

POSITIONS, WIDTH, VOCABULARY, SUPERVISED = 2048, 1280, 65_537, 256
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--head", choices=("plain", "ours"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.head:
        print(json.dumps(one_head(asked.head)))
        return
    heads = measure_heads(asked.runs)
    with tempfile.TemporaryDirectory() as folder:
        stages = measure_stages(Path(folder), asked.runs, asked.steps)
    print(table(heads), table(stages), sep="\n\n")
    result = {**machine(("torch", "transformers")), "head": heads, "stages": stages}
    print(write_result("steps", result))


def one_head(kind: str) -> dict[str, float]:
    """One forward and backward pass of the head, in this process."""
    import torch
    from torch.nn import functional as F

    from ocrdata.tokens.rendering import IGNORE
    from ocrtrain.model.ocr_model import OcrModel
    from ocrtrain.settings.model_config import ModelConfig

    torch.manual_seed(0)
    sizes = ModelConfig(
        sam_layers=1, sam_global_layers=(), clip_layers=1, gpt_layers=1, vocab_size=VOCABULARY
    )
    model = OcrModel(sizes, image_size=1024, image_token=VOCABULARY - 1)
    hidden = torch.randn(1, POSITIONS, WIDTH, requires_grad=True)
    targets = torch.full((1, POSITIONS), IGNORE)
    chosen = torch.randperm(POSITIONS)[:SUPERVISED]
    targets[0, chosen] = torch.randint(VOCABULARY, (SUPERVISED,))
    before, began = peak_rss(), time.perf_counter()
    if kind == "ours":
        at = chosen.sort().values
        loss = model.head_loss(hidden, at, targets[0, at]).loss_sum
    else:
        logits = 15 * torch.tanh(model.gpt.lm_head(hidden).float() / 15)
        loss = F.cross_entropy(logits[0], targets[0], ignore_index=IGNORE, reduction="sum")
    loss.backward()
    seconds = time.perf_counter() - began
    return {"loss": loss.item(), "seconds": seconds, "MB": (peak_rss() - before) / 1e6}


def peak_rss() -> float:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure_heads(runs: int) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    for _ in range(runs):
        for kind, results in found.items():
            words = [sys.executable, "-m", "benchmarks.steps", "--head", kind]
            output = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
            results.append(json.loads(output.stdout))
    return [
        {
            "head": kind,
            "loss": results[0]["loss"],
            "seconds": statistics.median(r["seconds"] for r in results),
            "peak MB": statistics.median(r["MB"] for r in results),
        }
        for kind, results in found.items()
    ]


def measure_stages(folder: Path, runs: int, steps: int) -> list[dict[str, Any]]:
    """Real tokens per second (after WARM_UP steps) and peak memory of each stage, medians."""
    inputs = make_inputs(folder)
    found: dict[str, list[dict[str, float]]] = {"stage1": [], "stage2": []}
    encoder = ""
    for run in range(runs):
        for stage, results in found.items():
            out = folder / f"{stage}-{run}"
            results.append(one_run(stage, out, inputs=inputs, steps=steps, encoder=encoder))
            encoder = encoder or str(out / f"deepencoder_{steps:06d}.safetensors")
    names = results[0].keys()
    return [
        {"stage": stage, **{n: statistics.median(r[n] for r in results) for n in names}}
        for stage, results in found.items()
    ]


def make_inputs(folder: Path) -> dict[str, str]:
    """Make shards of the real charts and chats and train a tokenizer on them, with the tools."""
    shards = folder / "shards"
    tool("make_shards", "jsonl", "--path", DATA / "charts" / "charts.jsonl", "--images",
         DATA / "charts", "--name", "charts", "--out", shards)  # fmt: skip
    tool("make_shards", "jsonl", "--path", DATA / "chat" / "chat.jsonl", "--name", "chat",
         "--out", shards)  # fmt: skip
    inputs = {name: str(shards / f"{name}.json") for name in ("charts", "chat")}
    inputs["tokenizer"] = str(folder / "tokenizer.json")
    tool("train_tokenizer", "--shards", *[inputs[n] for n in ("charts", "chat")],
         "--vocab-size", 2048, "--limit", 2000, "--out", inputs["tokenizer"])  # fmt: skip
    return inputs


def tool(name: str, *words: object) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def one_run(
    stage: str, out: Path, *, inputs: dict[str, str], steps: int, encoder: str
) -> dict[str, float]:
    words = [sys.executable, "-m", f"ocrtrain.{stage}", "--preset", "tiny", "--init", "random",
             "--shards", inputs["charts"] + "[:700]", "--val", inputs["charts"] + "[700:720]",
             "--tokenizer", inputs["tokenizer"], "--steps", str(steps), "--warmup", "5",
             "--eval-every", "0", "--save-every", "0", "--wandb", "off",
             "--out", str(out)]  # fmt: skip
    if stage == "stage2":
        words += ["--deepencoder", encoder, "--text", inputs["chat"] + "[:10000]",
                  "--val-text", inputs["chat"] + "[10000:10020]"]  # fmt: skip
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{stage} failed with status {process.returncode}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "train/loss" in line][WARM_UP:]
    seconds = sum(line["train/dt"] for line in trained)
    return {
        "tokens/s": sum(line["train/tokens"] for line in trained) / seconds,
        "wait %": 100 * sum(line["train/wait"] for line in trained) / seconds,
        "padding %": 100 * statistics.fmean(line["train/padding"] for line in trained),
        "peak MB": usage.ru_maxrss * 1024 / 1e6,
    }


if __name__ == "__main__":
    main()
