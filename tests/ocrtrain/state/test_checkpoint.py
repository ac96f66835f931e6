import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from ocrdata.errors import DiskError, TrainError
from ocrdata.tokens.tokenizer import Tokenizer, train_tokenizer
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import (
    COMPLETE,
    Checkpoint,
    State,
    collect,
    complete_checkpoints,
    newest,
    prune,
    save,
)

CONFIG = Config(weight_decay=0.1)
FILES = [
    "config.json", "model.safetensors", "optimizer.safetensors", "random.safetensors",
    "state.json", "tokenizer.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["one two three", "seventeen"], 280)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def advance(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = net(torch.randn(5, 3)).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def saved(run: Path, tokenizer: Tokenizer, step: int = 3) -> Path:
    net = model()
    optimizer = build_optimizer(net, CONFIG)
    advance(net, optimizer, step)
    state = State(step=step, total_tokens=7, wandb_id="abc")
    return save(run, state, config=CONFIG, tensors=collect(net, optimizer), tokenizer=tokenizer)


def test_resuming_is_bit_identical(tmp_path: Path, tokenizer: Tokenizer) -> None:
    net = model()
    optimizer = build_optimizer(net, CONFIG)
    advance(net, optimizer, 3)
    folder = save(
        tmp_path, State(step=3), config=CONFIG, tensors=collect(net, optimizer), tokenizer=tokenizer
    )
    uninterrupted = advance(net, optimizer, 5)

    resumed = model()
    optimizer = build_optimizer(resumed, CONFIG)
    found = Checkpoint.open(folder)
    found.load_weights(resumed)
    found.load_optimizer(resumed, optimizer)
    found.load_random_state()
    assert advance(resumed, optimizer, 5) == uninterrupted
    assert found.config == CONFIG
    assert found.state == State(step=3)
    assert found.tokenizer().fingerprint == tokenizer.fingerprint
    assert found.changed_versions() == []


def test_changed_versions_names_what_differs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = saved(tmp_path, tokenizer)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        changed = Checkpoint.open(folder).changed_versions()
    finally:
        torch.set_num_threads(threads)
    assert changed == [f"threads: {threads} then, {threads + 1} now"]


@pytest.mark.parametrize("name", [*FILES, COMPLETE])
def test_a_flipped_bit_in_any_file_is_detected(
    name: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = saved(tmp_path, tokenizer) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TrainError) as caught:
        read_all(path.parent)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_short_or_missing_file_is_detected(
    name: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = saved(tmp_path, tokenizer) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainError, match=name):
        read_all(path.parent)
    path.unlink()
    with pytest.raises(TrainError, match=name):
        read_all(path.parent)


def read_all(folder: Path) -> None:
    found = Checkpoint.open(folder)
    net = model()
    optimizer = build_optimizer(net, CONFIG)
    found.load_weights(net)
    found.load_optimizer(net, optimizer)
    found.load_random_state()
    assert found.config
    assert found.state
    assert found.tokenizer()


def test_incomplete_checkpoints_are_ignored(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainError, match=f"{tmp_path}: .*complete checkpoint"):
        newest(tmp_path)
    for step in (2, 10, 9):
        saved(tmp_path, tokenizer, step)
    (checkpoint.step_folder(tmp_path, 10) / COMPLETE).unlink()
    assert [folder.name for folder in complete_checkpoints(tmp_path)] == [
        "step_000002",
        "step_000009",
    ]
    assert newest(tmp_path).name == "step_000009"
    assert newest(checkpoint.step_folder(tmp_path, 2)).name == "step_000002"
    assert Checkpoint.open(newest(tmp_path)).state.step == 9


def test_old_checkpoints_and_leftovers_are_removed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, tokenizer, step)
    prune(tmp_path, 0)
    assert len(complete_checkpoints(tmp_path)) == 3
    prune(tmp_path, 2)
    assert [folder.name for folder in complete_checkpoints(tmp_path)] == [
        "step_000002",
        "step_000003",
    ]
    left = tmp_path / "checkpoints" / ".step_000004.tmp"
    shutil.copytree(complete_checkpoints(tmp_path)[0], left)
    checkpoint.clean(tmp_path)
    assert not left.exists()
    assert len(complete_checkpoints(tmp_path)) == 2


def test_saving_a_step_again_replaces_its_checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = saved(tmp_path, tokenizer)
    (first / COMPLETE).unlink()
    assert saved(tmp_path, tokenizer) == first
    read_all(first)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = Checkpoint.open(saved(tmp_path, tokenizer))
    with pytest.raises(TrainError, match=r"(?s)model\.safetensors: .*2\.weight"):
        found.load_weights(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(
        TrainError,
        match=r"optimizer\.safetensors: .*2\.(weight|bias)",
    ):
        other = nn.Sequential(nn.Linear(2, 2))
        found.load_optimizer(other, build_optimizer(other, CONFIG))


def test_a_file_in_place_of_the_folder_is_a_disk_error(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(DiskError, match="checkpoints"):
        saved(tmp_path, tokenizer)


def test_the_completion_marker_is_plain_json(tmp_path: Path, tokenizer: Tokenizer) -> None:
    value = json.loads((saved(tmp_path, tokenizer) / COMPLETE).read_text())
    assert sorted(value["files"]) == FILES
