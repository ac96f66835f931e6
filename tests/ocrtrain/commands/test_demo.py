"""The demo's commands and its final table; the demo itself takes minutes (`make demo`)."""

import json
import re
from pathlib import Path

import pytest

from ocrdata.commands import make_shards
from ocrdata.errors import OcrError
from ocrdata.reading.view import open_shards
from ocrdata.sample import text_of
from ocrdata.sources.words import HELD_OUT, side_of
from ocrtrain.commands import demo
from ocrtrain.settings import presets
from ocrtrain.settings.flags import parse


def test_a_command_that_fails_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OcrError, match="status 2"):
        demo.command("ocrdata.commands.check_shards", "no/such.tar")
    out, err = capfd.readouterr()
    assert "$ python -m ocrdata.commands.check_shards no/such.tar" in out
    assert "no/such.tar" in err


def answers_file(path: Path) -> None:
    """Four titles, one of them wrong, and a table that is half right."""
    lines = [("title", "What?", gold, gold) for gold in ("ABC", "ABC", "XYZ")]
    lines += [("title", "What?", "KLM", "KLN"), ("table", "Write.", "A 1; B 2", "A 1; C 3")]
    keys = ("kind", "question", "gold", "answer")
    path.write_text(
        "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
    )


def test_the_report_has_scores_chance_and_strings(tmp_path: Path) -> None:
    title = {"exact": 0.75, "answers": 4, "exchanged": {"exact": 0.125}}
    summary = {
        "scores": {"kinds": {"title": title, "table": {"exact": 0.0, "answers": 1}}},
        "validation": {"val/image_gain": 1.25},
    }
    (tmp_path / "answers.summary.json").write_text(json.dumps(summary))
    answers_file(tmp_path / "answers.jsonl")
    for stage in ("stage1", "stage2"):
        (tmp_path / stage).mkdir()
        losses = [{"step": 0, "val/loss": 6.0}, {"step": 8, "val/loss": 1.5}]
        text = "".join(json.dumps(line) + "\n" for line in losses)
        (tmp_path / stage / "metrics.jsonl").write_text(text)
    shown = demo.report(tmp_path, seconds=61)
    rows = [line.split() for line in shown.splitlines()]
    # Half of the titles are ABC; one letter of twelve, and two of eight, are wrong.
    assert ["title", "75.0%", "12.5%", "50.0%", "8.3%", "4"] in rows
    assert ["table", "0.0%", "-", "100.0%", "25.0%", "1"] in rows
    assert "right  What? XYZ" in shown and "WRONG  What? KLM, not 'KLN'" in shown
    assert "1.250" in shown and "1 min 01 s" in shown
    assert f"python -m ocrtrain.ask --checkpoint {tmp_path}/stage2" in shown


def test_no_word_that_is_scored_stands_in_a_training_sample(tmp_path: Path) -> None:
    words: dict[str, set[str]] = {}
    for name, (source, _, *flags) in demo.SOURCES.items():
        typed = [source, "--limit", 150, *flags, "--out", tmp_path, "--name", name]
        assert make_shards.main(list(map(str, typed))) == 0
        texts = [
            text_of(message)
            for sample in open_shards(f"{tmp_path}/{name}.json")
            for message in sample.messages
        ]
        words[name] = {word for text in texts for word in re.findall(r"[A-Z0-9]{3,}", text)}
    unseen = words.pop("unseen")
    assert len(unseen) > 300 and all(words.values())
    assert not unseen & set.union(*words.values())
    assert {side_of(word) for word in unseen} == {HELD_OUT}


def test_the_commands_are_ones_that_the_stages_take(tmp_path: Path) -> None:
    """A source that never gets a weight, or an unknown name, would be refused."""
    weights = {"cells": 1, "minis": 0, "charts": 0}
    typed = [*demo.sources(tmp_path, **weights), *demo.STAGE1, "--preset", "tiny"]
    config = parse(list(map(str, typed)), presets.stage1, prog="stage1", description="").config
    assert [one.name for one in config.named_sources] == list(weights)
    assert config.image_mode("cells").size == 64 and config.image_mode("charts").size == 256
