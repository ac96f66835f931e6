"""Token counts equal the rendered lengths, for all real chats and charts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ocrdata.planning.counting import count_shards
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import Sample, from_turns, text_part
from ocrdata.tokens.rendering import render
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from tests.support.countkill import turns_of
from tests.support.hubdata import chart_rows, chats, shared
from tests.support.rows import write_shard


def check_counts_against_renderings(shards: Shards, tokenizer: Tokenizer, slots: int) -> int:
    """Compare the counts stored for the shards with the rendered samples. Returns the turns."""
    counted = count_shards(shards, tokenizer, workers=2)
    turns = 0
    for one, found in zip(shards, turns_of(counted), strict=True):
        rendered = render(one.messages, tokenizer, [slots] * len(one.images))
        tokens = sum(4 + turn.user_tokens + turn.assistant_tokens for turn in found)
        assert len(rendered) == 1 + tokens + slots * sum(turn.images for turn in found)
        assert rendered.loss_mask.sum() == sum(turn.assistant_tokens + 1 for turn in found)
        assert sum(turn.images for turn in found) == len(one.images)
        turns += len(found)
    return turns


def real_tokenizer() -> Tokenizer:
    return load_tokenizer(shared("tokenizer") / "gpt2.tiktoken")


def test_counts_equal_renderings_for_all_real_chats(tmp_path: Path) -> None:
    tokenizer, rows = real_tokenizer(), chats(12_000)
    assert len(rows) == 12_000
    for number, start in enumerate(range(0, len(rows), 4_096)):
        some = [as_sample(row["messages"]) for row in rows[start : start + 4_096]]
        write_shard(tmp_path / f"chats-{number:03d}.tar", some, start)
    shards = open_shards(str(tmp_path / "chats-*.tar"))
    assert check_counts_against_renderings(shards, tokenizer, 0) == 32_562


def as_sample(messages: Iterable[dict[str, str]]) -> Sample:
    parts = [{"role": m["role"], "content": [text_part(m["content"])]} for m in messages]
    return Sample(parts, [], "chats", {})


def test_counts_equal_renderings_for_all_real_charts(tmp_path: Path) -> None:
    tokenizer, rows = real_tokenizer(), chart_rows()
    charts = [
        from_turns(
            [(turn["user"], turn["assistant"]) for turn in row["texts"]],
            [found["bytes"] for found in row["images"]],
            source=row["source"],
            meta={},
        )
        for row in rows
    ]
    write_shard(tmp_path / "charts-000.tar", charts)
    shards = open_shards(str(tmp_path / "charts-000.tar"))
    assert check_counts_against_renderings(shards, tokenizer, 273) == 1_506
