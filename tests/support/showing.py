"""Batches to inspect: from whole runs of a small model, or built from given texts."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocrdata.reading.samples import DecodedSample
from ocrdata.reading.view import SampleRef, open_shards
from ocrdata.sample import Sample, from_turns
from ocrtrain.data.batch import collate, masked_sample, prepare_sample
from ocrtrain.inspection.rebuild import RebuildRequest, RebuiltBatch, RebuiltSample
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from tests.support.data import small_config
from tests.support.rows import flip
from tests.support.small import CONFIG, MODE, tokenizer

VOID = {"meta", "br", "img", "input"}

KINDS: dict[str, dict[str, Any]] = {
    "one source": {"text": (), "val_text": ()},
    "packed mix": {"pack": True, "pack_window": 16, "row_images": 4, "weigh_by": "tokens"},
    "rows mixed": {"mix": "sample", "seq_len": 20},
    "text at the end": {"text_ratio_at": ("6:9/10",)},
}


def config_of(inputs: dict[str, str], out: Path, **values: Any) -> Config:
    """The squares data set mixed with sums: 10 steps of 4 rows."""
    base: dict[str, Any] = {
        "text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:32]",),
        "val": (inputs["shards"] + "[48:50]",), "steps": 10, "save_every": 5, "eval_every": 0,
        "log_samples": True,
    }  # fmt: skip
    return small_config(inputs, out, **{**base, **values})


def trained_run(inputs: dict[str, str], out: Path, **values: Any) -> Path:
    """Trains a small model and returns its run folder."""
    torch.set_num_threads(1)
    train(config_of(inputs, out, **values))
    return out


def break_images(spec: str, positions: Sequence[int]) -> None:
    """Flips a bit in the image of each of these samples; a second call restores them."""
    shards = open_shards(spec)
    for position in positions:
        image = next(m for m in shards.row(position).members if not m.name.endswith(".json"))
        shard = shards.ref(position).shard
        flip(Path(spec).parent / shard, image.offset + 9)


def rebuilt_of(
    rows: Sequence[Sequence[Sample | str]], *, key: str = "k", source: str = "s", run: str = "run"
) -> RebuiltBatch:
    """A batch with one row per list of samples. A text is a skipped sample: the reason it was."""
    pieces, samples = [], []
    for number, row in enumerate(rows):
        group = []
        for at, sample in enumerate(row):
            ref = SampleRef("x-000.tar", f"{key}{number}.{at}", 10 * number + at, "0f" * 16)
            if isinstance(sample, str):
                group.append(masked_sample(ref, source, reason=sample, tokenizer=tokenizer()))
                continue
            images = tuple(np.full((8, 12 + n, 3), 40 * n, np.uint8)
                           for n in range(len(sample.images)))  # fmt: skip
            item = DecodedSample(ref, source, sample, images)
            group.append(
                prepare_sample(item, tokenizer=tokenizer(), mode=MODE, seq_len=CONFIG.seq_len)
            )
        pieces.append(group)
    batch = collate(0, pieces, tokenizer=tokenizer())
    for number, collated in enumerate(batch.rows):
        for segment in collated.segments:
            sizes = tuple((12 + n, 8) for n in range(segment.images))
            samples.append(RebuiltSample(number, segment, 3, sizes))
    return RebuiltBatch(
        request=RebuildRequest(Path(run), 0), config=CONFIG,
        tokenizer=tokenizer(), steps=5, batch=batch, rows=range(len(rows)),
        samples=tuple(samples), identity=batch.identity, recorded=batch.identity, compared=0,
        problem=None,
    )  # fmt: skip


def talk(question: str, answer: str, images: int = 0) -> Sample:
    """A sample with one question and one answer."""
    return from_turns([(question, answer)], [b""] * images, source="", meta={})


class Page(HTMLParser):
    """Parses a page, asserting that it is well-formed. Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), "duplicate attribute"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        for tag in set(self.open):
            self.inside.setdefault(tag, []).append(data)

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of one attribute in all tags of one name."""
        return [value or "" for found, values in self.tags if found == tag
                for key, value in values.items() if key == name]  # fmt: skip

    def within(self, tag: str) -> str:
        """All text inside the tags of one name."""
        return "".join(self.inside.get(tag, []))
