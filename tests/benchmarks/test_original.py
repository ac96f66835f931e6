"""Ours against the original's way: the same samples every round, and the table's arithmetic."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.original import (
    SIZES,
    Rounds,
    model_of,
    ranks,
    rows_of,
    spread,
    train_other,
    train_ours,
    ways_of,
)
from ocrtrain.cost.flops import decoder_flops, head_flops, image_flops
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from tests.support.small import CONFIG, squares

TURNS = len("Which colour?") + len("Its first letter?")


def config(folder: Path) -> Config:
    """Twelve squares, three of a colour: an epoch is a round."""
    spec = squares(folder).spec
    return replace(
        CONFIG, shards=(f"{spec}[:]",), val=(f"{spec}[-1:]",), tokenizer="bytes", shuffle="none",
        workers=0, allow_leak=True, out=str(folder / "run"), seq_len=256,
    )  # fmt: skip


def rounds_of(way: str, chosen: Config) -> list[dict[str, float]]:
    """Two rounds of a way."""
    answers = io.StringIO()
    train = train_ours if way.startswith("ours") else train_other
    train(way, chosen, Rounds(["round\n", "round\n"], answers))
    ready, *found = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert ready == {} and len(found) == 2
    return found


def test_every_way_trains_on_the_same_samples_in_every_round(tmp_path: Path) -> None:
    chosen = config(tmp_path)
    ours, packed, original, nanovlm = (
        rounds_of(way, replace(chosen, out=str(tmp_path / way)))
        for way in ("ours", "ours, packed", "original", "nanoVLM, packed")
    )
    # A sample: <|bos|>, two turns with four special tokens each, three slots; the answers.
    letters = 3 * (3 + 5 + 4 + 4) + 12
    for first, second in (ours, packed, nanovlm):
        assert first["samples"] == second["samples"] == 12
        assert first["tokens"] == second["tokens"] == 12 * (1 + 8 + 3 + TURNS) + letters
        assert first["answers"] == second["answers"] == letters + 2 * 12
    # Two rows a pass: here a colour beside itself or another, of up to two letters more a turn.
    assert ours[0]["tokens"] <= ours[0]["positions"] < 1.05 * ours[0]["tokens"]
    assert packed[0]["positions"] >= packed[0]["tokens"]
    assert packed[0]["flops"] == ours[0]["flops"] < nanovlm[0]["flops"]
    assert nanovlm[0]["positions"] % chosen.seq_len == 0
    first, second = original
    assert first["tokens"] == second["tokens"]
    assert first["answers"] == letters - 12 + 12  # the first turn alone
    assert first["positions"] > first["tokens"]
    assert all(one["seconds"] > 0 for way in (ours, packed, original, nanovlm) for one in way)


def test_a_row_of_the_table_compares_medians_with_what_flops_allow() -> None:
    def done(seconds: float, tokens: int, flops: float) -> dict[str, float]:
        return {"seconds": seconds, "tokens": tokens, "answers": tokens / 2, "samples": 2,
                "positions": 2 * tokens, "flops": flops}  # fmt: skip

    measured = {
        "original": [done(2, 100, 40), done(4, 100, 40), done(2, 100, 40)],  # 50 tokens/s
        "ours": [done(1, 150, 30), done(1, 150, 30), done(9, 150, 30)],  # 150 tokens/s
    }
    first, second = rows_of(measured, {"original": 4e6, "ours": 1e6})
    assert (first["times"], first["bound"], first["share"]) == (1, 1, 1)
    assert second["times"] == 3
    assert second["bound"] == pytest.approx((150 / 30) / (100 / 40))
    assert second["share"] == pytest.approx(1.5)
    assert second["memory"] == 0.25 and second["peak MB"] == 1
    assert second["padding"] == "50.0%"


def test_the_sizes_are_those_that_are_promised() -> None:
    quarter, layers, full = model_of("quarter"), model_of("layers"), ModelConfig()
    assert (quarter.gpt_width, quarter.gpt_layers, quarter.vocab_size) == (256, 4, 65_537)
    assert (quarter.sam_width, quarter.sam_layers) == (192, 4)
    assert (quarter.clip_layers, quarter.clip_mlp) == (4, 1024)
    assert SIZES["quarter"].image_size == 512
    # `layers` costs a quarter of the full model in each part, so that the proportions are its own.
    images = [image_flops(model, 1024) for model in (layers, full)]
    for part in ("sam", "clip"):
        assert images[0][part] == pytest.approx(images[1][part] / 4, rel=0.06)  # the neck is whole
    text = [decoder_flops(model, 500, 500**2) + head_flops(model, 200) for model in (layers, full)]
    assert text[0] == pytest.approx(text[1] / 4, rel=0.001)
    assert ways_of(SIZES["layers"], "stage1") == ("original", "ours")


def test_ranks_are_cut_or_filled_and_slices_spread() -> None:
    lines = [f"{letter} {number}" for number, letter in enumerate(("QQ==", "Qg==", "QUI="))]
    assert ranks(lines, 2) == lines[:2]
    assert ranks(lines, 5) == [*lines, "/wAA 3", "/wAB 4"]
    assert spread("a.json", 700, 18) == "a.json[0:684:38]"
