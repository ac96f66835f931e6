"""What a newcomer may type wrongly: one line that names the field, the value and the rule, with the
right exit status, before a process group or a device is opened, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ocrdata.errors import OcrError
from ocrdata.storage.locks import Lock
from ocrtrain import stage1, stage2
from ocrtrain.commands import ask, evaluate, plan, show_batch
from ocrtrain.run import launch
from ocrtrain.settings import presets
from ocrtrain.settings.flags import typed
from ocrtrain.settings.world import PATIENCE_S, VARIABLES
from tests.support.data import make_inputs, small_config

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = {
    "stage1": stage1.main,
    "stage2": stage2.main,
    "ask": ask.main,
    "evaluate": evaluate.main,
    "plan": plan.main,
    "show_batch": show_batch.main,
}


@dataclass(frozen=True)
class Place:
    """A folder with shards, a trained run, files of other things, and the words that train it."""

    folder: Path
    words: Sequence[str]

    def fill(self, text: str) -> str:
        """`text` with D for the folder."""
        return text.replace("D/", f"{self.folder}/")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bad")
    config = small_config(
        make_inputs(folder), folder / "run", steps=2, eval_every=0, save_every=0, log_samples=True
    )
    words = ["--preset", "tiny", *typed(config, presets.stage1("tiny"))]
    assert stage1.main(words) == 0
    for name in ("notes.txt", "notes.pt", "notes.safetensors", "notes.json"):
        (folder / name).write_text("Notes of a meeting.\n")
    (folder / "empty").mkdir()
    (folder / "empty.pt").write_bytes(b"")
    weights = load_file(folder / "run" / "deepencoder_000002.safetensors")
    first, *others = sorted(weights)
    save_file({name: weights[name] for name in others}, folder / "lacks.safetensors")
    save_file(weights | {first: torch.zeros(3)}, folder / "shape.safetensors")
    shutil.copytree(folder / "run", folder / "torn")
    (folder / "torn/checkpoints/step_000002/model.safetensors").unlink()
    save_file(weights | {"eyes": torch.zeros(3)}, folder / "more.safetensors")
    return Place(folder, words)


def told(place: Place, command: str, words: Sequence[str]) -> tuple[int, str]:
    """The exit status and the only line of a command."""
    with pytest.raises(OcrError) as caught:
        COMMANDS[command]([place.fill(word) for word in words])
    (line,) = caught.value.messages
    assert "\n" not in line
    return caught.value.exit_status, line


ENCODER = "D/run/deepencoder_000002.safetensors"

NEW_RUNS = [
    # A checkpoint, or weights, of another size or image size; a missing key.
    ("--init D/run --gpt-width 64 --gpt-mlp 128", 1, "--init gpt_width 32 64 --gpt-width"),
    ("--init D/run --gpt-layers 3", 1, "--init gpt_layers 2 3 --gpt-layers"),
    (f"--deepencoder {ENCODER} --sam-width 64", 1, "--deepencoder sam_width 32 64"),
    (f"--deepencoder {ENCODER} --sam-grid 8", 1, "--deepencoder sam_grid 4 8"),
    ("--deepencoder D/lacks.safetensors", 1, "--deepencoder lacks.safetensors missing encoder."),
    ("--deepencoder D/shape.safetensors", 1, "--deepencoder shape.safetensors encoder. [3]"),
    ("--init D/more.safetensors", 1, "--init more.safetensors unknown eyes"),
    ("--init D/torn", 1, "--init step_000002/model.safetensors missing"),
    # Something else where weights or a tokenizer belong.
    ("--init D/notes.txt", 1, "--init notes.txt text file 'Notes of a meeting.'"),
    ("--init D/notes.safetensors", 1, "--init notes.safetensors text file"),
    ("--deepencoder D/notes.pt", 1, "--deepencoder notes.pt text file"),
    ("--init D/empty.pt", 1, "--init empty.pt empty"),
    ("--init D/empty", 1, "--init empty missing model.safetensors"),
    ("--init D/squares-000.tar", 1, "--init squares-000.tar neither"),
    ("--init ./random", 2, "--init ./random random?"),
    ("--deepencoder D/gone.pt", 2, "--deepencoder gone.pt no such file"),
    ("--tokenizer D/notes.json", 2, "--tokenizer notes.json"),
    ("--tokenizer D/empty", 2, "--tokenizer empty tokenizer.json"),
    ("--vocab-size 7", 2, "300 --vocab-size 7"),
    ("--recipe encoder", 2, "--deepencoder --init deepseek-ai/DeepSeek-OCR"),
    ("--recipe encoder --init D/run --init-parts sam", 2, "--freeze clip random"),
    ("--recipe seed", 2, "--recipe seed --preset tiny"),
    # Numbers.
    ("--steps 0", 2, "--steps 0 at least 1"),
    ("--steps 1.5", 2, "--steps 1.5"),
    ("--batch 0", 2, "--batch 0 at least 1"),
    ("--micro-batch 3", 2, "--batch 4 --micro-batch 3"),
    ("--image-size 100", 2, "--image-size 100 64"),
    ("--seq-len 1", 2, "--seq-len 1 at least 2"),
    ("--schedule-from 1", 2, "--schedule-from 1 --extend 0"),
    ("--gpt-width 33 --gpt-heads 3", 2, "--gpt-width 33 --gpt-heads 3 even"),
    ("--lr nan", 2, "--lr nan above 0"),
    ("--beta2 1", 2, "--beta2 1.0 below 1"),
    ("--workers -1", 2, "--workers -1 at least 0"),
    ("--profile 9:3", 2, "--profile 9:3 10:13"),
    ("--text D/sums-*.tar --text-ratio 1.2", 2, "--text-ratio 1.2 from 0 to 1"),
    ("--text D/sums-*.tar --text-ratio-at 1:1.2", 2, "--text-ratio-at 1:1.2 from 0 to 1"),
    ("--device tpu", 2, "--device tpu cuda"),
    # Slices.
    ("--shards D/squares-*.tar[100:200]", 2, "--shards [100:200] no samples 60"),
    ("--val D/squares-*.tar[60:]", 2, "--val [60:] no samples 60"),
    ("--shards D/squares-*.tar[a:b]", 2, "[a:b] [start:stop]"),
    ("--train-slice [5]", 2, "--train-slice [5]"),
    ("--shards D/notes.txt", 2, "notes.txt .tar"),
    # Folders.
    ("--out D/run", 2, "run --resume --out"),
    ("--out D/", 2, "squares-000.tar --out"),
    ("--out D/notes.txt", 2, "--out notes.txt file"),
    ("--out D/notes.txt/x", 2, "--out notes.txt/x file"),
    ("--out D/new --extend 0", 2, "--extend 0 1 or more"),
    ("--out D/new --extend 3", 2, "--extend 3 new no run"),
    # Memory.
    ("--batch 1000000", 1, "GB of memory GB free --micro-batch 1"),
]  # fmt: skip
"""Words added to those of a new run -> exit status, and facts that its line names."""


@pytest.mark.parametrize(("words", "status", "facts"), NEW_RUNS, ids=[case[0] for case in NEW_RUNS])
def test_of_a_new_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, words: str, status: int, facts: str
) -> None:
    opens_shards = "no samples" in facts or "memory" in facts or "random" in facts.split()[2:]
    if not opens_shards:
        monkeypatch.setattr(launch, "open_world", lambda *_: pytest.fail("a device was touched"))
    before = sorted(place.folder.rglob("*"))
    found, line = told(place, "stage1", [*place.words, "--out", "D/new", *words.split()])
    assert found == status, line
    assert not [fact for fact in facts.split() if fact not in line], line
    left = set(place.folder.rglob("*")) - set(before)
    assert left <= {place.folder / "new", place.folder / "new" / ".lock"}, "the folder has no run"


@pytest.mark.parametrize(
    ("words", "status", "facts"),
    [
        ("--resume --gpt-layers 3", 2, "--gpt-layers: 2 3 --init"),
        ("--resume --image-size 128", 2, "--image-size: 64 128 --init"),
        ("--resume --preset base", 2, "--preset: tiny base"),
        ("--resume --recipe encoder", 2, "--recipe: safe encoder"),
        ("--resume --steps 9", 2, "--steps 9 2 --extend"),
        ("--resume --freeze eyes", 2, "--freeze eyes gpt"),
        ("--extend -1", 2, "--extend -1 1 or more"),
    ],
)
def test_of_a_run_that_goes_on(place: Place, words: str, status: int, facts: str) -> None:
    found, line = told(place, "stage1", ["--out", "D/run", *words.split()])
    assert found == status, line
    assert not [fact for fact in facts.split() if fact not in line], line


@pytest.mark.parametrize(
    ("command", "words", "status", "facts"),
    [
        ("stage1", "--out D/gone --resume", 2, "--resume gone --out --shards"),
        ("stage2", "--out D/run --resume", 2, "run stage1 stage2"),
        ("ask", "--checkpoint D/notes.txt --image D/notes.txt Why?", 2, "--checkpoint notes.txt"),
        ("ask", "--checkpoint D/empty Why?", 1, "empty checkpoint"),
        ("ask", "--checkpoint D/run --image D/notes.txt Why?", 1, "--image notes.txt PNG"),
        ("ask", "--checkpoint D/run --max-new-tokens 0 Why?", 2, "--max-new-tokens 0 at least 1"),
        ("evaluate", f"--checkpoint {ENCODER} --shards D/squares-*.tar", 2, "--checkpoint folder"),
        ("evaluate", "--checkpoint D/run --shards D/squares-*.tar[600:]", 2, "--shards [600:] 60"),
        ("evaluate", "--checkpoint D/run --shards D/squares-*.tar --batch 0", 2, "--batch 0 1"),
        ("plan", "--shards D/squares-*.tar --mfu 1.2", 2, "--mfu 1.2 1"),
        ("show_batch", "--run D/run --step 99", 2, "--step 99 0 to 1"),
    ],
)
def test_of_other_commands(place: Place, command: str, words: str, status: int, facts: str) -> None:
    found, line = told(place, command, words.split())
    assert found == status, line
    assert not [fact for fact in facts.split() if fact not in line], line


@pytest.mark.parametrize(
    ("size", "words", "facts"),
    [
        (3, "", "batch 4 3"),
        (2, "--batch 12 --micro-batch 4", "--micro-batch 4 6"),
        (2, "--steps 0", "--steps 0 at least 1"),
        (2, "--init D/notes.txt", "--init notes.txt text file"),
        (2, "--out D/run", "run --resume"),
        (2, "--out D/run --resume --gpt-layers 3", "--gpt-layers: 2 3"),
    ],
)
def test_under_torchrun_the_first_process_of_a_machine_says_it_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, size: int, words: str, facts: str
) -> None:
    """Before the processes connect. The others wait, and are ended by torchrun meanwhile."""
    monkeypatch.setattr(launch, "open_world", lambda *_: pytest.fail("the ranks connect"))
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    for rank in range(size):
        values = (str(rank), str(size), str(rank), "localhost", "1")
        for name, value in zip(VARIABLES, values, strict=True):
            monkeypatch.setenv(name, value)
        _, line = told(place, "stage1", [*place.words, "--out", "D/new", *words.split()])
        assert not [fact for fact in facts.split() if fact not in line], line
        assert waited == [PATIENCE_S] * rank


def test_a_folder_that_another_process_writes(place: Place) -> None:
    folder = place.folder / "taken"
    folder.mkdir()
    lock: AbstractContextManager[object] = Lock(folder / ".lock", "the run")
    with lock:
        status, line = told(place, "stage1", [*place.words, "--out", "D/taken"])
    assert status == 2 and f"{folder}/.lock" in line
