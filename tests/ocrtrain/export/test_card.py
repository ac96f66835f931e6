"""The model card says what the run knows, and what it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from ocrtrain.evaluation.validation import BLIND_GAIN
from ocrtrain.export.card import LEAST_GAIN, Facts, answers_summary, newest_numbers, write_card
from ocrtrain.state.checkpoint import State
from tests.support import small
from tests.support.exported import NUMBERS, exported, exported_run

FACTS = Facts(small.CONFIG, State(step=150), 1_720_000, [64], {}, None)


def test_the_card_of_an_export_has_the_numbers_of_its_step() -> None:
    card = (exported() / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for fact in (
        *("`squares.tar`", "150 steps", "| val/image_gain | 1.5000 |", "| 87.5% |"),
        *("of squares.tar[6:]:", "64 x 64 px", "2 of its answers ran into a loop"),
    ):
        assert fact in card, fact
    assert "9.0" not in card and "8.0" not in card, "numbers of other steps"


def test_what_is_not_known_is_said() -> None:
    card = write_card(FACTS)
    for fact in ("never validated", "were not scored", "was not measured", "1.7 million"):
        assert fact in card, fact
    blind = write_card(replace(FACTS, numbers={**NUMBERS, "val/image_gain": 0.001, "step": 9}))
    assert LEAST_GAIN == BLIND_GAIN
    assert "not seen to look" in blind and "was not measured" not in blind


def test_scores_of_benchmarks_have_their_intervals() -> None:
    score = {"mean": 0.5, "low": 0.25, "high": 0.75, "number": 12, "method": "wilson"}
    one = {"title": "ChartQA", "version": "2022", "scores": {"relaxed": score}}
    row = {"answers": 12, "relaxed": 0.5, "exact": 0.5, "anls": 0.5, "ned": 0.5}
    answers = {"shards": "a.tar", "scores": {"all": row}, "benchmarks": [one]}
    card = write_card(replace(FACTS, answers=answers))
    assert "| ChartQA | 2022 | relaxed | 0.5000 | 0.2500 to 0.7500 | 12 |" in card


def test_all_image_sizes_are_told() -> None:
    card = write_card(replace(FACTS, image_sizes=[64, 128]))
    assert "64 x 64 px, and\ntake 3 positions" in card and "images of 128 px" in card
    assert "shrunk to 128 x 128" in card and "also trained" not in write_card(FACTS)


def test_folders_of_a_machine_are_left_out_and_urls_kept() -> None:
    config = replace(
        small.CONFIG, shards=("/home/me/a-<000..017>.tar[:100]",), val=("s3://bucket/b.json",)
    )
    card = write_card(replace(FACTS, config=config))
    assert "`a-<000..017>.tar[:100]`" in card and "`s3://bucket/b.json`" in card
    assert "/home" not in card


def test_numbers_are_those_of_the_last_validation_up_to_the_step(tmp_path: Path) -> None:
    found = newest_numbers(exported_run(), 150)
    assert found == {**NUMBERS, "step": 150}
    assert newest_numbers(exported_run(), 149)["val/image_gain"] == 9.0
    assert newest_numbers(exported_run(), 10) == newest_numbers(tmp_path, 150) == {}


def test_another_file_in_place_of_a_summary_is_refused(tmp_path: Path) -> None:
    assert answers_summary(tmp_path, "step_000001") is None
    path = tmp_path / "answers-step_000001.summary.json"
    scores = {"all": {"answers": 1}}
    for text in (
        "{",
        json.dumps({"scores": {}}),
        json.dumps({"scores": scores, "shards": "a", "benchmarks": [{"title": "b"}]}),
    ):
        path.write_text(text)
        with pytest.raises(OcrError, match=r"answers-step_000001\.summary\.json"):
            answers_summary(tmp_path, "step_000001")
