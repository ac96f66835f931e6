"""The model card of an exported model, from what its run knows: data, steps, scores, image gain.

It says what the model cannot. Nothing in it is typed by hand; what was not measured is said so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrdata.errors import OcrError
from ocrdata.runtime.units import human_time
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.state.checkpoint import State
from ocrtrain.state.run_files import read_lines

LEAST_GAIN = 0.02
"""Nats per token below which the card says that the model was not seen to look at images, as the
validation does (`BLIND_GAIN`)."""

CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- ocr
---

# {name}

A vision-language model that answers questions about images: SAM and CLIP as encoder, nanochat's GPT
as decoder, {parameters:.1f} million parameters. Images are letterboxed to {size} x {size} px, and
take {slots} positions each.{others}

## Use

```python
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "."  # this folder, or the repository it was uploaded to
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
messages = [{{"role": "user", "content": [
    {{"type": "image", "path": "chart.png"}},
    {{"type": "text", "text": "What is the title?"}},
]}}]
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
with torch.no_grad():
    found = model.generate(**inputs)
print(processor.batch_decode(found[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0])
```

Where the package that trained it is installed, `ocrtrain.hf.register()` does in place of
`trust_remote_code`. Several conversations may be given at once (padded on the left), several images
in a message, and a system message first. Give images as paths or bytes: Pillow reads a few files
wrongly, which the processor corrects. {precision}

## Training

{training}

## Scores

{scores}

## What it cannot

{limits}
"""


@dataclass(frozen=True)
class Facts:
    """What is known of the exported checkpoint; `image_sizes` are the sides of its images in px,
    `numbers` those of its newest validation, and `answers` the summary of its evaluation, if there
    is one."""

    config: Config
    state: State
    parameters: int
    image_sizes: Sequence[int]
    numbers: Mapping[str, Any]
    answers: Mapping[str, Any] | None


def newest_numbers(run: Path, step: int) -> dict[str, Any]:
    """The numbers of the last validation up to `step`, with the step it was made at; {} where there
    is none. Raises TrainError for a corrupted log."""
    found: dict[str, Any] = {}
    path = run / "metrics.jsonl"
    if path.is_file():
        for line in read_lines(path):
            if line["step"] <= step and "val/loss" in line:
                found = {name: line[name] for name in line if name.startswith("val/")}
                found["step"] = line["step"]
    return found


def answers_summary(run: Path, checkpoint: str) -> dict[str, Any] | None:
    """The summary that `ocrtrain.evaluate` wrote for a checkpoint. Raises OcrError for one that
    cannot be read."""
    path = run / f"answers-{checkpoint}.summary.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        _ = found["scores"]["all"]["answers"], found["shards"], list(_benchmarks(found))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise OcrError(
            f"{path}: not the summary of an evaluation; delete it, or evaluate again"
        ) from exc
    return found


def write_card(facts: Facts) -> str:
    """The text of the model card."""
    config = facts.config
    return CARD.format(
        name=config.name,
        parameters=facts.parameters / 1e6,
        size=facts.image_sizes[0],
        others=_others(facts.image_sizes),
        slots=image_slots(facts.image_sizes[0]),
        precision=(
            "On a GPU its training computed in bf16: call\n`generate` within "
            '`torch.autocast("cuda", torch.bfloat16)` for the same numbers.'
            if config.precision != "fp32"
            else ""
        ),
        training="\n".join(f"- {line}" for line in _training(facts)),
        scores="\n".join(_scores(facts)),
        limits="\n".join(f"- {line}" for line in _limits(facts)),
    )


def _others(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return ""
    return (
        f"\nIt was also trained with images of {' and '.join(map(str, sizes[1:]))} px: "
        "`image_size=` of the processor\nchooses."
    )


def _training(facts: Facts) -> Iterator[str]:
    config, state = facts.config, facts.state
    for what, specs in (  # without the folders of somebody's machine
        ("images and texts", (*config.shards, *config.source)),
        ("text only", config.text),
        ("validated on", (*config.val, *config.val_text, *config.val_source)),
    ):
        if specs:
            yield f"{what}: " + ", ".join(f"`{_name(spec)}`" for spec in specs)
    yield (
        f"{state.step:,} steps of {config.batch:,} rows of at most {config.seq_len:,} tokens; "
        f"{state.total_tokens:,} tokens, {state.total_flops:.3g} FLOPs, "
        f"{human_time(state.seconds)}"
    )
    start = config.init or "as the preset says"
    yield f"start: {start} (preset {config.preset}), seed {config.seed}"
    if config.freeze:
        yield f"not trained: {', '.join(config.freeze)}"
    if state.skipped:
        yield f"{state.skipped:,} samples could not be read and were left out"


def _name(spec: str) -> str:
    """'charts.tar[:100]' of 'name=/data/charts.tar[:100]'; a URL as it is."""
    return spec if "://" in spec else spec.rpartition("/")[2]


def _scores(facts: Facts) -> Iterator[str]:
    numbers = facts.numbers
    if numbers:
        yield f"Validation at step {numbers['step']:,} (losses in nats per supervised token):"
        yield ""
        yield "| number | value |"
        yield "|---|---|"
        for name, value in numbers.items():
            if name != "step" and isinstance(value, int | float):
                yield f"| {name} | {value:.4f} |"
    else:
        yield "It was never validated."
    if facts.answers is None:
        yield ""
        yield "Its answers were not scored."
        return
    yield ""
    asked = " ".join(map(_name, str(facts.answers["shards"]).split()))
    yield f"Answers to the questions of {asked}:"
    yield ""
    yield "| kind of question | answers | relaxed | exact | ANLS | NED |"
    yield "|---|---|---|---|---|---|"
    scores = facts.answers["scores"]
    for kind, row in {**scores.get("kinds", {}), "all": scores["all"]}.items():
        yield (
            f"| {kind} | {row['answers']} | {row['relaxed']:.1%} | {row['exact']:.1%} | "
            f"{row['anls']:.3f} | {row['ned']:.3f} |"
        )
    yield from _benchmarks(facts.answers)


def _benchmarks(answers: Mapping[str, Any]) -> Iterator[str]:
    """The scores of published benchmarks in a summary, with their 95 % intervals."""
    found = answers.get("benchmarks", [])
    if found:
        yield ""
        yield "| benchmark | version | measure | score | 95 % interval | answers |"
        yield "|---|---|---|---|---|---|"
    for one in found:
        for name, score in one["scores"].items():
            yield (
                f"| {one['title']} | {one['version']} | {name} | {score['mean']:.4f} | "
                f"{score['low']:.4f} to {score['high']:.4f} | {score['number']} |"
            )


def _limits(facts: Facts) -> Iterator[str]:
    gain = facts.numbers.get("val/image_gain")
    if gain is None:
        yield "Whether it looks at its images was not measured."
    elif gain < LEAST_GAIN:
        yield (
            "It was not seen to look at its images: with those of another sample its loss rises "
            f"by {gain:.4f} nats a token only."
        )
    else:
        yield (
            f"It looks at its images (with those of another sample its loss rises by {gain:.4f} "
            "nats a token), which is no promise that it reads them rightly."
        )
    size, length = max(facts.image_sizes), facts.config.seq_len
    yield f"Images are shrunk to {size} x {size} px; what is too small to be read then is lost."
    yield f"It was trained with at most {length:,} tokens, those of images included."
    yield "Other data than it was trained on was not tried unless the scores above name it."
    if facts.answers is not None:
        scores = facts.answers["scores"]
        if scores.get("repeating"):
            yield f"{scores['repeating']} of its answers ran into a loop and had to be stopped."
        if scores.get("cut_off"):
            yield f"{scores['cut_off']} of its answers did not end by themselves."
