"""Loading a trained model for inference."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ocrdata.errors import OcrError, TrainError, UsageError
from ocrdata.images.modes import ImageMode
from ocrdata.tokens.tokenizer import train_tokenizer
from ocrtrain.commands.evaluate import default_out
from ocrtrain.model.factory import new_model
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.run.trained import TrainedModel, load_for_inference
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State
from tests.support.encoders import randomise
from tests.support.exported import exported, exported_run
from tests.support.pretrained import CONFIG

CPU = torch.device("cpu")


def same(one: OcrModel, other: OcrModel) -> bool:
    return all(torch.equal(v, other.get_parameter(n)) for n, v in one.named_parameters())


def test_a_checkpoint_is_loaded_verified_and_in_eval_mode(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tokenizer = train_tokenizer(["What colour is it? Red, green, blue."] * 3, CONFIG.vocab_size)
    config = Config(model=CONFIG, image_size=128)
    config = replace(config, init="random", freeze=("sam",), checkpointing=True)
    model = new_model(config, tokenizer)
    for step in (1, 2):
        randomise(model, seed=step)
        checkpoint.save(
            run,
            State(step=step),
            config=config,
            tensors=checkpoint.collect(model, build_optimizer(model, config)),
            tokenizer=tokenizer,
        )
    loaded = load_for_inference(run, CPU)
    assert loaded.checkpoint == run / "checkpoints" / "step_000002"
    assert (loaded.config, loaded.tokenizer.fingerprint) == (config, tokenizer.fingerprint)
    assert not loaded.model.training
    assert same(loaded.model, model)
    first = load_for_inference(run / "checkpoints" / "step_000001", CPU)
    assert not same(first.model, model)
    with pytest.raises(TrainError, match="no complete checkpoint"):
        load_for_inference(tmp_path, CPU)
    weights = loaded.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(TrainError, match=r"step_000002/model\.safetensors: "):
        load_for_inference(run, CPU)


def test_an_exported_folder_is_loaded(tmp_path: Path) -> None:
    folder = exported()
    loaded = load_for_inference(folder, CPU)
    ours = load_for_inference(exported_run(), CPU)
    assert same(loaded.model, ours.model) and not loaded.model.training
    assert loaded.tokenizer.fingerprint == ours.tokenizer.fingerprint
    for name in ("model", "image_size", "seq_len", "precision"):
        assert getattr(loaded.config, name) == getattr(ours.config, name), name
    assert (loaded.folder, loaded.digests) == (folder.parent, folder / "export.json")
    assert (ours.folder, ours.digests) == (exported_run(), ours.checkpoint / "complete")
    assert default_out(loaded) == folder.parent / "answers-exported.jsonl"


@pytest.mark.parametrize(
    ("name", "change", "facts"),
    [
        ("model.safetensors", lambda data: data[:-1] + b"!", "model.safetensors: checksum"),
        ("config.json", lambda data: data.replace(b"image_sizes", b"sizes"), "config.json: not as"),
        ("config.json", lambda data: data.replace(b"gpt_width", b"gpt_weight"), "config.json: not"),
        ("ocr-tokenizer.json", lambda data: data.replace(b"1,2", b"1,3"), "checksum mismatch"),
    ],
)
def test_a_changed_export_is_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], facts: str
) -> None:
    shutil.copytree(exported(), tmp_path / "changed")
    path = tmp_path / "changed" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(OcrError, match=facts):
        load_for_inference(tmp_path / "changed", CPU)


def test_an_export_without_its_tokenizers_is_refused(tmp_path: Path) -> None:
    shutil.copytree(exported(), tmp_path / "changed")
    for name in ("ocr-tokenizer.json", "tokenizer.json"):
        (tmp_path / "changed" / name).unlink()
    with pytest.raises(OcrError, match="tokenizer is missing"):
        load_for_inference(tmp_path / "changed", CPU)


def test_an_image_of_no_source_has_the_size_of_the_run() -> None:
    def mode(size: str = "", **values: object) -> ImageMode:
        config = Config(source=("a=x:1", "b=y:1"), image_size=256, **values)  # type: ignore[arg-type]
        loaded = TrainedModel(None, None, config, Path("run"))  # type: ignore[arg-type]
        return loaded.image_mode(size)

    assert mode() == mode(image_size_of=("a=64",)) == ImageMode(256)
    assert mode(image_size_of=("a=64", "b=64")) == ImageMode(64)
    assert mode("128", image_size_of=("a=64", "b=512")) == ImageMode(128)
    with pytest.raises(UsageError, match=r"--image-size is missing.*\(64, 512 px\)"):
        mode(image_size_of=("a=64", "b=512"))
    with pytest.raises(UsageError, match=r"100 px .*multiple of 64"):
        mode("100")
