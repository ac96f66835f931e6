"""`tools/show_batch.py` as run from a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ocrdata.errors import OcrError, TrainError, UsageError
from ocrtrain.commands.show_batch import main
from tests.support.data import make_inputs
from tests.support.shardcommand import ROOT, environment
from tests.support.showing import Page, trained_run

STEPS = 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    inputs = make_inputs(folder)
    return trained_run(inputs, folder / "charts-tiny", stop_at=6, pack=True, pack_window=16)


def test_the_command_without_a_gpu(run: Path, tmp_path: Path) -> None:
    """In a separate process without CUDA, with warnings as errors."""
    before = sorted(path.name for path in run.rglob("*"))
    words = ["--run", str(run), "--step", "3"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tools" / "show_batch.py"), *words],
        env=environment(tmp_path, CUDA_VISIBLE_DEVICES="", PYTHONIOENCODING="ascii"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    line = json.loads((run / "batches.jsonl").read_text().splitlines()[3])
    assert f"identity {line['identity']} matches the recorded one" in done.stdout
    keys = [f"{shard}:{key}" for row in line["rows"] for _, shard, key in row]
    assert all(key in done.stdout for key in keys)
    page = Page((tmp_path / "shown" / "charts-tiny-step_000003.html").read_text())
    assert all(key in page.within("td") for key in keys)
    with Image.open(tmp_path / "shown" / "charts-tiny-step_000003.png") as image:
        image.load()
    assert "written to shown/charts-tiny-step_000003.png" in done.stdout
    assert sorted(path.name for path in run.rglob("*")) == before


def show(run: Path, out: Path, *words: object) -> list[str]:
    """Runs the command in this process and returns the names of the files it wrote."""
    assert main(["--run", str(run), "--out", str(out), *map(str, words)]) == 0
    return sorted(path.name for path in out.iterdir())


def test_the_document_has_every_sample(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = show(run, tmp_path, "--step", 3, "--samples", 1, "--json")
    document = json.loads(capsys.readouterr().out)
    line = json.loads((run / "batches.jsonl").read_text().splitlines()[3])
    assert document["identity"] == document["recorded"] == line["identity"]
    keys = [(shard, key) for row in line["rows"] for _, shard, key in row]
    assert [(one["shard"], one["key"]) for one in document["samples"]] == keys
    assert sum(one["length"] for one in document["samples"]) == document["tokens"]
    assert document["samples"][0]["images"] and document["samples"][0]["question"]
    assert {Path(path).name for path in document["written"]} <= set(written)


def test_a_rank_and_a_step_to_come(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(run, tmp_path / "a", "--step", 2, "--rank", 1, "--world", 2) == [
        "charts-tiny-step_000002-rank_1_of_2.html", "charts-tiny-step_000002-rank_1_of_2.png",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "of the global batch matches the recorded one\n2 rows, " in printed
    show(run, tmp_path / "only", "--step", 2, "--rank", 0)
    assert "rank 0 of 1" in capsys.readouterr().out
    show(run, tmp_path / "b", "--step", 9, "--images", 0, "--samples", 1)
    printed = capsys.readouterr().out
    assert "not finished step 9" in printed
    assert " samples (--samples N)" in printed


def error_of(status: int, run: Path, out: Path, *words: object) -> str:
    with pytest.raises(OcrError) as caught:
        main(["--run", str(run), "--out", str(out), *map(str, words)])
    assert caught.value.exit_status == status
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_arguments(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "steps 0 to 9" in error_of(2, run, out, "--step", 10)
    text = error_of(2, run, out, "--step", 1, "--world", 2)
    assert "--world 2" in text and "--rank" in text
    assert "rank 1 of 1" in error_of(2, run, out, "--step", 1, "--rank", 1)
    text = error_of(2, run, out, "--step", 1, "--rank", 0, "--world", 3)
    assert re.search(r" 4 .* 3 ", text)
    assert "rank 2 of 2" in error_of(2, run, out, "--step", 1, "--rank", 2, "--world", 2)
    assert f"--run {tmp_path} " in error_of(2, tmp_path, out, "--step", 1)
    saved = next(run.glob("checkpoints/step_*"))
    text = error_of(2, saved, out, "--step", 1)
    assert f"{saved} is a checkpoint" in text and text.endswith(f"--run {run}")
    assert "nowhere.json" in error_of(2, run, out, "--step", 1, "--shards", "nowhere.json")
    assert not out.exists()
    step = ["--step", "1"]
    wrong = {"--step: .*'x'": ["--step", "x"], "--step": [], "--images: '-1'": [*step, "--images",
             "-1"], "--world: '0'": [*step, "--world", "0"]}  # fmt: skip
    for message, words in wrong.items():
        with pytest.raises(UsageError, match=message):
            main(["--run", str(run), *words])


def test_a_batch_that_differs_is_shown_only_with_anyway(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "batches.jsonl"
    whole = path.read_text()
    out = tmp_path / "out"
    try:
        path.write_text(whole.replace(json.loads(whole.splitlines()[1])["identity"], "0" * 32))
        text = error_of(1, run, out, "--step", 1)
        assert "step 1 " in text and "0" * 32 in text and str(path) in text
        assert not out.exists() and capsys.readouterr().out == ""
        with pytest.raises(TrainError, match="0" * 32):
            main(["--run", str(run), "--out", str(out), "--step", "1", "--anyway"])
        assert "NOT VERIFIED AS THE BATCH TRAINED ON" in capsys.readouterr().out
        assert "NOT VERIFIED" in "".join(Page(next(out.glob("*.html")).read_text()).text)
        path.unlink()
        assert f"{path} is missing" in error_of(1, run, tmp_path / "none", "--step", 1)
    finally:
        path.write_text(whole)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_an_output_folder_without_write_permission(run: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "no permission" in error_of(1, run, tmp_path / "out", "--step", 1)


def test_a_file_in_place_of_the_output_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert str(tmp_path / "out") in error_of(1, run, tmp_path / "out", "--step", 1)


def test_exit_statuses() -> None:
    assert UsageError.exit_status == 2 and TrainError.exit_status == 1
