"""Loading a trained model for inference."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ocrdata.errors import TrainError
from ocrdata.tokens.tokenizer import train_tokenizer
from ocrtrain.model.factory import new_model
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.run.trained import load_for_inference
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State
from tests.support.encoders import randomise
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
