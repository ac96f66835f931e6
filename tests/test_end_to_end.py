"""The main workflow, command by command, each in its own process, small enough for a minute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.reading.view import open_shards
from ocrtrain.run import run_log

ROOT = Path(__file__).parent.parent
SMALL = ["--preset", "tiny", "--init", "random", "--steps", "8", "--batch", "4", "--warmup", "2",
         "--eval-every", "4", "--save-every", "4", "--image-size", "64", "--gpt-width", "32",
         "--gpt-heads", "2", "--gpt-mlp", "64", "--wandb", "off"]  # fmt: skip


class Shell:
    """Runs commands in a folder, as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, (words, done.stdout[-2000:], done.stderr[-2000:])
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with shards of charts and sums, a tokenizer, and runs of both stages."""
    shell = Shell(tmp_path_factory.mktemp("way"))
    tools = ROOT / "tools"
    shell(tools / "make_shards.py", "charts", "--limit", 40, "--shard-samples", 16)
    shell(tools / "make_shards.py", "sums", "--limit", 30)
    shell(tools / "check_shards.py", "shards/charts.json", "shards/sums.json")
    shell(tools / "train_tokenizer.py", "--shards", "shards/charts.json", "shards/sums.json",
          "--vocab-size", 320, "--out", "tokenizer.json")  # fmt: skip
    common = [*SMALL, "--tokenizer", "tokenizer.json", "--val", "shards/charts.json[32:]",
              "--shards", "shards/charts-<000..002>.tar[:32]"]  # fmt: skip
    shell("-m", "ocrtrain.stage1", *common, "--stop-at", 5, "--out", "runs/one")
    shell("-m", "ocrtrain.stage1", "--resume", "--out", "runs/one")
    shell("-m", "ocrtrain.stage2", *common, "--out", "runs/two", "--deepencoder",
          "runs/one/deepencoder_000008.safetensors", "--text", "shards/sums.json[:20]",
          "--val-text", "shards/sums.json[20:]", "--text-ratio", "1/2")  # fmt: skip
    return shell


def test_both_stages_train_and_validate(shell: Shell) -> None:
    for stage in ("one", "two"):
        lines = run_log.read(shell.folder / "runs" / stage)
        assert [line["step"] for line in lines if "train/loss" in line] == list(range(8))
        assert [line["step"] for line in lines if "val/loss" in line] == [0, 4, 8]
    shares = [line["mix/sums_share"] for line in lines if "mix/sums_share" in line]
    assert sum(shares) == 4


def test_evaluate_writes_answers_and_scores(shell: Shell) -> None:
    done = shell("-m", "ocrtrain.evaluate", "--checkpoint", "runs/two", "--shards",
                 "shards/charts.json[32:]", "--exchange", "--max-new-tokens", 4, "--device",
                 "cpu")  # fmt: skip
    assert "image_gain" in done.stdout
    answers = (shell.folder / "runs/two/answers-step_000008.jsonl").read_text().splitlines()
    assert len(answers) == 8 * 8
    summary = json.loads((shell.folder / "runs/two/answers-step_000008.summary.json").read_text())
    assert set(summary["scores"]["kinds"]) == {
        "type", "count", "colour", "title", "month", "largest", "value", "compare",
    }  # fmt: skip


def test_ask_answers_about_an_image(shell: Shell) -> None:
    sample = open_shards(str(shell.folder / "shards" / "charts.json"))[0]
    (shell.folder / "chart.png").write_bytes(sample.images[0])
    done = shell("-m", "ocrtrain.ask", "--checkpoint", "runs/two", "--image", "chart.png",
                 "What is the title?", "--max-new-tokens", 4)  # fmt: skip
    assert done.stdout.endswith("\n")
    assert "<|" not in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["-m", "ocrtrain.stage1"], 2, "--shards"),
        (["-m", "ocrtrain.stage1", "--shards", "shards/chart.json"], 2, "shards/chart.json"),
        (["-m", "ocrtrain.stage1", "--shards", "shards/charts-<000..009>.tar"], 2,
         "charts-003.tar"),
        (["-m", "ocrtrain.stage1", "--shards", "shards/charts.json[:9]", "--val",
          "shards/charts.json[9:]", "--device", "cpu"], 1, "--preset tiny --init random"),
        (["-m", "ocrtrain.stage1", "--lr", "fast"], 2, "invalid float value: 'fast'"),
        (["-m", "ocrtrain.stage2", *SMALL, "--shards", "shards/charts.json"], 2,
         "--deepencoder"),
        (["-m", "ocrtrain.ask", "--checkpoint", "runs/none", "what?"], 2, "runs/none"),
        (["-m", "ocrtrain.evaluate", "--checkpoint", "runs/two", "--shards",
          "shards/charts.json[40:]"], 2, "shards/charts.json[40:]"),
        ([str(ROOT / "tools" / "make_shards.py"), "chartkqa"], 2, "invalid choice"),
        ([str(ROOT / "tools" / "check_shards.py"), "nowhere"], 2, "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_clear_error(
    words: list[str], status: int, message: str, shell: Shell
) -> None:
    done = shell(*words, status=status)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4
