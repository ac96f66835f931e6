"""A model small enough to memorise coloured squares within seconds of training.

Used by the tests of validation, generation and the commands. All parts are real, only tiny.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import load_sample
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from ocrdata.tokens.tokenizer import Tokenizer, train_tokenizer
from ocrtrain.data.batch import collate, prepare_sample
from ocrtrain.model.factory import bare_model
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State
from tests.support.losses import loss_of

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "grey": (90,) * 3}
QUESTIONS = {"colour": "Which colour?", "first": "Its first letter?"}

MODEL = ModelConfig(
    sam_width=32,
    sam_layers=1,
    sam_heads=2,
    sam_mlp=64,
    sam_window=2,
    sam_global_layers=(0,),
    sam_neck=32,
    sam_mid=32,
    sam_out=32,
    sam_grid=4,
    clip_width=32,
    clip_layers=1,
    clip_heads=2,
    clip_mlp=64,
    clip_grid=1,
    gpt_width=64,
    gpt_layers=2,
    gpt_heads=2,
    gpt_mlp=128,
    vocab_size=266,
)

CONFIG = Config(
    name="small", init="random", precision="fp32", image_size=64, seq_len=128, val_batch=4,
    batch=4, steps=150, lr=3e-3, device="cpu", wandb="off", model=MODEL,
)  # fmt: skip

MODE = ImageMode(CONFIG.image_size)


def png(colour: tuple[int, ...], side: int = 40) -> bytes:
    """A coloured square."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def coloured(name: str, images: int = 1) -> Sample:
    """Two questions about `images` squares of one colour."""
    turns = [(QUESTIONS["colour"], name), (QUESTIONS["first"], name[0])]
    return from_turns(
        turns, [png(COLOURS[name])] * images, source="squares", meta={"kinds": list(QUESTIONS)}
    )


def chat(number: int) -> Sample:
    """A text-only conversation."""
    return from_turns([(f"{number}+1?", str(number + 1))], [], source="sums", meta={})


def write(path: Path, samples: list[Sample]) -> Shards:
    """One shard of these samples, opened."""
    with ShardWriter(path) as writer:
        for number, sample in enumerate(samples):
            writer.write(make_key(number), sample)
    return open_shards(str(path))


def squares(folder: Path, rows: int = 12) -> Shards:
    """Samples in groups of three of one colour, so that every third sample covers all colours."""
    names = list(COLOURS)
    return write(
        folder / "squares-000.tar", [coloured(names[n // 3 % len(names)]) for n in range(rows)]
    )


@cache
def tokenizer() -> Tokenizer:
    """A tokenizer of single bytes and special tokens."""
    return train_tokenizer(["Which colour?"], MODEL.vocab_size)


def untrained() -> OcrModel:
    """Random weights."""
    return bare_model(CONFIG, tokenizer())


@dataclass(frozen=True)
class Trained:
    """Weights that have memorised the squares; each test loads them into a model of its own."""

    weights: dict[str, torch.Tensor]
    loss: float

    def model(self) -> OcrModel:
        model = untrained()
        model.load_state_dict(self.weights)
        return model

    def save(self, run: Path, **values: Any) -> Path:
        """Save it as the checkpoint of a run folder; `values` change the config."""
        model = self.model()
        checkpoint.save(
            run,
            State(step=CONFIG.steps),
            config=replace(CONFIG, out=str(run), **values),
            tensors=checkpoint.collect(model, build_optimizer(model, CONFIG)),
            tokenizer=tokenizer(),
        )
        return run


_TRAINED: list[Trained] = []


def trained(folder: Path) -> Trained:
    """Train once a process; the shard is written into `folder`."""
    if not _TRAINED:
        _TRAINED.append(_train(squares(folder)[::3]))
    return _TRAINED[0]


def _train(shards: Shards) -> Trained:
    model = untrained()
    optimizer = build_optimizer(model, CONFIG)
    singles = []
    for position in range(len(shards)):
        item = load_sample(shards, position, source="squares", mode=MODE)
        sample = item.sample
        image, *_ = sample.messages[0]["content"]
        singles.append(item)
        for turn in range(2):
            user, answer = sample.messages[2 * turn : 2 * turn + 2]
            text = user["content"][-1]
            alone = replace(sample, messages=[{"role": "user", "content": [image, text]}, answer])
            singles.append(replace(item, sample=alone))
    samples = [
        prepare_sample(one, tokenizer=tokenizer(), mode=MODE, seq_len=CONFIG.seq_len)
        for one in singles
    ]
    batch = collate(0, [[sample] for sample in samples], tokenizer=tokenizer())
    model.train()
    for _ in range(CONFIG.steps):
        optimizer.zero_grad()
        total, supervised, _ = loss_of(model, batch)
        loss = total / supervised
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Trained(weights, loss.item())
