"""Small shard sets and runs for tests: coloured squares that a small model can learn to name."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ocrdata.sample import Sample, from_turns
from ocrdata.shards.writer import ShardWriter
from ocrdata.tokens.tokenizer import train_tokenizer
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig

COLOURS = ["red", "green", "blue", "black", "white", "yellow"]

SMALL_MODEL = ModelConfig(
    sam_width=32, sam_layers=2, sam_heads=2, sam_mlp=64, sam_window=3, sam_global_layers=(1,),
    sam_neck=16, sam_mid=24, sam_out=32, sam_grid=4, clip_width=32, clip_layers=1, clip_heads=2,
    clip_mlp=64, clip_grid=2, gpt_width=32, gpt_layers=2, gpt_heads=2, gpt_mlp=64, vocab_size=0,
)  # fmt: skip


def square(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def colour_sample(number: int) -> Sample:
    """One image, one or two turns."""
    pick = random.Random(f"colour {number}")
    colour = pick.choice(COLOURS)
    turns = [("What colour is it?", colour)]
    if number % 3 == 0:
        turns.append(("Sure?", f"Yes, {colour}."))
    size = (pick.randint(20, 90), pick.randint(20, 90))
    return from_turns(turns, [square(colour, size)], source="squares", meta={"number": number})


def text_sample(number: int) -> Sample:
    pick = random.Random(f"text {number}")
    a, b = pick.randint(0, 9), pick.randint(0, 9)
    return from_turns([(f"{a} + {b} =", str(a + b))], [], source="sums", meta={})


def write_set(folder: Path, name: str, samples: list[Sample], *, per_shard: int = 20) -> str:
    """Write shards without a manifest; returns a spec that matches all of them."""
    for number, start in enumerate(range(0, len(samples), per_shard)):
        with ShardWriter(folder / f"{name}-{number:03d}.tar") as writer:
            for at, sample in enumerate(samples[start : start + per_shard], start):
                writer.write(f"{at:09d}", sample)
    return str(folder / f"{name}-*.tar")


def make_inputs(folder: Path) -> dict[str, str]:
    """60 squares, 40 sums, a tokenizer: {"shards": spec, "text": spec, "tokenizer": path}."""
    squares = [colour_sample(number) for number in range(60)]
    sums = [text_sample(number) for number in range(40)]
    texts = [p["text"] for s in squares + sums for m in s.messages for p in m["content"]
             if p["type"] == "text"]  # fmt: skip
    tokenizer = folder / "tokenizer.json"
    train_tokenizer(texts, 300).save(tokenizer)
    return {
        "shards": write_set(folder, "squares", squares),
        "text": write_set(folder, "sums", sums),
        "tokenizer": str(tokenizer),
    }


def small_config(inputs: dict[str, str], out: Path, **values: Any) -> Config:
    """Stage 1 of a model that takes milliseconds a step."""
    config = replace(
        presets.stage1("tiny"),
        init="random", shards=(inputs["shards"] + "[:48]",), val=(inputs["shards"] + "[48:]",),
        tokenizer=inputs["tokenizer"], out=str(out), model=SMALL_MODEL, image_size=64,
        seq_len=128, steps=12, batch=4, warmup=2, lr=1e-3, eval_every=6, save_every=4,
        val_batch=6, workers=1, wandb="off", device="cpu", keep=0,
    )  # fmt: skip
    return replace(config, **values)


def flags(config: Config) -> list[str]:
    """The command line that gives `config`."""
    from ocrtrain.settings.saved_config import to_json

    words: list[str] = []
    value = to_json(config)
    for kind in (value, value["model"]):
        for name, setting in kind.items():
            if name in ("version", "model"):
                continue
            flag = "--" + name.replace("_", "-")
            if isinstance(setting, bool):
                words.append(flag if setting else flag.replace("--", "--no-", 1))
            elif isinstance(setting, (list, tuple)):
                words += [flag, *map(str, setting)]
            else:
                words += [flag, str(setting)]
    return words


def losses(run: Path) -> list[tuple[int, float]]:
    """The step and the loss of every step that a run logged."""
    from ocrtrain.run import run_log

    return [(m["step"], m["train/loss"]) for m in run_log.read(run) if "train/loss" in m]
