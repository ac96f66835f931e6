"""The demo's commands and its final table; the demo itself takes minutes (`make demo`)."""

import json
from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from ocrtrain.commands import demo


def test_a_command_that_fails_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OcrError, match="status 2"):
        demo.command("ocrdata.commands.check_shards", "no/such.tar")
    out, err = capfd.readouterr()
    assert "$ python -m ocrdata.commands.check_shards no/such.tar" in out
    assert "no/such.tar" in err


def test_the_table_shows_each_kind_and_the_next_commands(tmp_path: Path) -> None:
    scores = {"exact": 0.75, "answers": 8, "exchanged": {"exact": 0.125}}
    summary = {
        "scores": {"kinds": {"title": scores}, "all": {"exact": 0.5, "answers": 9}},
        "validation": {"val/image_gain": 1.25},
    }
    (tmp_path / "answers.summary.json").write_text(json.dumps(summary))
    for stage in ("stage1", "stage2"):
        (tmp_path / stage).mkdir()
        lines = [{"step": 0, "val/loss": 6.0}, {"step": 8, "val/loss": 1.5}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / stage / "metrics.jsonl").write_text(text)
    shown = demo.report(tmp_path, seconds=61)
    rows = [line.split() for line in shown.splitlines()]
    assert ["title", "75.0%", "12.5%", "8"] in rows
    assert ["all", "kinds", "50.0%", "-", "9"] in rows
    assert "1.250" in shown and "1 min 01 s" in shown
    assert f"python -m ocrtrain.ask --checkpoint {tmp_path}/stage2" in shown
