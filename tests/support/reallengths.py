"""Sample lengths from token counts, compared with rendered samples; and the real samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrdata.planning.lengths import SampleLengths, sample_lengths
from ocrdata.sample import Message, from_turns, text_part
from ocrdata.tokens.counts import Counts, CountsBuilder
from ocrdata.tokens.rendering import count, render, truncate
from ocrdata.tokens.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data"


def counted(found: list[list[Message]], with_: Tokenizer) -> Counts:
    builder = CountsBuilder()
    for messages in found:
        builder.add(count(messages, with_))
    return builder.finish()


def images_of(messages: list[Message]) -> int:
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def check(
    found: list[list[Message]], with_: Tokenizer, *, slots: int, seq_len: int
) -> SampleLengths:
    """Compare the computed lengths of conversations with their renderings."""
    sizes = np.arange(len(found), dtype=np.uint32)
    result = sample_lengths(counted(found, with_), sizes, slots=slots, seq_len=seq_len)
    truncated = zip(result.truncated_tokens.tolist(), result.truncated_turns.tolist(), strict=True)
    lost = dict(zip(result.truncated.tolist(), truncated, strict=True))
    for number, messages in enumerate(found):
        whole = render(messages, with_, [slots] * images_of(messages))
        row = truncate(whole, seq_len)
        assert result.lengths[number] == len(row)
        assert result.supervised[number] == int(row.loss_mask.sum())
        assert result.images[number] == len(row.image_starts)
        assert lost.get(number, (0, 0)) == (row.truncated_tokens, row.truncated_turns)
        assert result.untruncated[number] == len(whole)
    assert result.bytes.tolist() == list(range(len(found)))
    assert not len(result.unfit)
    return result


def real(name: str) -> list[list[Message]]:
    if not (SHARED / name).exists():
        pytest.skip("the real data is not beside the repository")
    rows: list[list[Message]] = []
    for line in (SHARED / name).read_text().split("\n")[:-1]:
        value: dict[str, Any] = json.loads(line)
        if "messages" in value:
            rows.append(
                [{"role": m["role"], "content": [text_part(m["content"])]}
                 for m in value["messages"]]
            )  # fmt: skip
        else:
            turns = [(turn["user"], turn["assistant"]) for turn in value["texts"]]
            rows.append(from_turns(turns, [b""], source="", meta={}).messages)
    return rows
