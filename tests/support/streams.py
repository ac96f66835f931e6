"""Streams of small squares and sums, for the tests of `ocrtrain.data.stream`."""

from __future__ import annotations

import shutil
from pathlib import Path

from ocrdata.planning.plan import Plan
from ocrdata.reading.view import Shards, open_shards
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import Sources, open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.settings.config import Config
from tests.support.data import small_config
from tests.support.rows import flip

STEPS = 14

State = tuple[int, str]
"""The next step, and the plan's digest: everything a prefetcher has to save."""


def two_sources(inputs: dict[str, str], **values: object) -> Config:
    """Squares with sums mixed in."""
    text = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    return small_config(inputs, Path("unused"), **{"steps": STEPS, **text, **values})


def make_stream(config: Config) -> Stream:
    """A stream with sources, tokenizer and plan of its own, as in another process."""
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    return Stream(plan, sources, config, tokenizer=tokenizer)


def make_plan(config: Config, sources: Sources) -> Plan:
    return plan_run(config, sources, load_tokenizer(config.tokenizer)).plan


def positions(shards: Shards) -> list[int]:
    """The positions of a view's samples in the whole set."""
    return [shards.ref(number).position for number in range(len(shards))]


def damaged(inputs: dict[str, str], folder: Path, position: int) -> str:
    """A copy of the squares in which the image of one sample has a flipped bit."""
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, folder)
    spec = str(folder / "squares-*.tar")
    row = open_shards(spec).row(position)
    image = next(member for member in row.members if not member.name.endswith(".json"))
    flip(folder / f"squares-{position // 20:03d}.tar", image.offset + 9)
    return spec
