"""Small checkpoints of every kind; checkpoints that do not fit, are corrupted or missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ocrdata.errors import SourceError, UsageError, WeightsError
from ocrtrain.model.pretrained import choose_files
from ocrtrain.model.tensor_names import to_deepencoder
from tests.support import oracle
from tests.support.encoders import pixels
from tests.support.pretrained import (
    CONFIG,
    GPT_SIZES,
    Tensors,
    clip_checkpoint,
    model,
    nanochat_checkpoint,
    random_model,
    sam_checkpoint,
    take,
    to_nanochat,
    write_nanochat,
    write_safetensors,
)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """A source of each part."""
    source = random_model(seed=5)
    return {
        "sam": write_safetensors(tmp_path / "sam", sam_checkpoint(source)),
        "clip": write_safetensors(tmp_path / "clip", clip_checkpoint(source)),
        "gpt": write_nanochat(tmp_path / "gpt", nanochat_checkpoint(source)),
    }


def same(ours: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_pretrained_parts_equal_the_oracle_on_the_checkpoints(sources: dict[str, str]) -> None:
    target = model(seed=1)
    before = {n: v.detach().clone() for n, v in target.encoder.named_parameters()}
    for part, source in sources.items():
        take(target, source, part)

    original = random_model(seed=5)
    weights = to_deepencoder(original.encoder)
    for name in ("sam.proj.conv1.weight", "sam.proj.conv2.weight", "projector.weight",
                 "image_newline", "view_separator"):  # fmt: skip
        assert torch.equal(target.encoder.get_parameter(name), before[name])  # stay random
    weights["sam_model.net_2.weight"] = before["sam.proj.conv1.weight"]
    weights["sam_model.net_3.weight"] = before["sam.proj.conv2.weight"]
    with torch.no_grad():
        sam = oracle.sam(oracle.part(weights, "sam_model."), pixels(128), heads=4, window=5,
                         full=(1,))  # fmt: skip
        same(target.encoder.sam_map(pixels(128)), sam)
        clip = oracle.clip(oracle.part(weights, "vision_model."), sam, heads=4)
        same(target.encoder.clip(sam).last_hidden_state, clip)
        embeds = torch.randn(1, 9, CONFIG.gpt_width)
        logits = target.logits(target.hidden(embeds, torch.arange(9)[None]))
        same(logits[0, :, :-1], oracle.gpt(to_nanochat(original.gpt), embeds[0], heads=4)[:, :-1])


def test_the_image_tokens_row_is_the_mean_of_the_others(sources: dict[str, str]) -> None:
    target = model(seed=1)
    take(target, sources["gpt"])
    for table in (target.gpt.model.embed_tokens.weight, target.gpt.lm_head.weight):
        torch.testing.assert_close(table[-1], table[:-1].mean(dim=0), rtol=0.01, atol=1e-3)


def test_parts_without_a_source_are_unchanged(sources: dict[str, str]) -> None:
    target = model(seed=1)
    before = {n: v.detach().clone() for n, v in target.named_parameters()}
    take(target, sources["clip"])
    changed = {n for n, v in target.named_parameters() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith("encoder.clip.") for name in changed)


def test_nanochat_as_pytorch_model_bin_with_a_config_of_transformers(tmp_path: Path) -> None:
    source, target = random_model(seed=5), model(seed=1)
    folder = tmp_path / "gpt"
    folder.mkdir()
    torch.save(dict(source.gpt.state_dict()), folder / "pytorch_model.bin")
    names = {"n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads",
             "n_layer": "num_hidden_layers", "n_embd": "hidden_size"}  # fmt: skip
    sizes = {other: GPT_SIZES[name] for name, other in names.items()}
    (folder / "config.json").write_text(json.dumps(sizes))
    take(target, str(folder))
    for name, value in source.gpt.named_parameters():
        assert torch.equal(value, target.gpt.get_parameter(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 8}, r"n_head is 8, .*gpt_heads.* 4; .*--gpt-heads 8"),
        ({"n_kv_head": 1}, "n_kv_head is 1"),
        ({"n_layer": 3}, "n_layer is 3"),
        ({"n_embd": 80}, "n_embd is 80"),
        ({"n_head": None}, r"\bn_head is missing"),
        ({"window_pattern": "SSSL"}, "newer nanochat.*window_pattern"),
    ],
)
def test_a_nanochat_of_other_sizes_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = write_nanochat(
        tmp_path / "gpt", nanochat_checkpoint(random_model(5)), GPT_SIZES | change
    )
    with pytest.raises(WeightsError, match=message):
        take(model(), folder)


def test_the_latest_nanochat_is_chosen_by_number(tmp_path: Path) -> None:
    latest, older = random_model(seed=5), random_model(seed=6)
    write_nanochat(tmp_path / "gpt", nanochat_checkpoint(latest))
    folder = tmp_path / "gpt"
    for kind in ("model_{}.pt", "meta_{}.json"):
        (folder / kind.format("021400")).rename(folder / kind.format("1000"))
    torch.save(nanochat_checkpoint(older), folder / "model_999.pt")
    (folder / "meta_999.json").write_text((folder / "meta_1000.json").read_text())
    target = model(seed=1)
    take(target, str(folder))
    wanted = latest.gpt.get_parameter("model.layers.0.mlp.fc1.weight")
    assert torch.equal(target.gpt.get_parameter("model.layers.0.mlp.fc1.weight"), wanted)


def test_the_config_beside_pytorch_model_bin_is_chosen_by_number() -> None:
    names = ["pytorch_model.bin", "meta_999.json", "meta_1000.json", "config.json"]
    assert choose_files(names) == ["pytorch_model.bin", "meta_1000.json"]


@pytest.mark.parametrize("name", ["value_embeds.0.weight", "resid_lambdas", "smear_gate.weight"])
def test_a_newer_nanochat_is_refused_by_its_tensors(tmp_path: Path, name: str) -> None:
    tensors = nanochat_checkpoint(random_model(5)) | {name: torch.ones(3)}
    folder = write_nanochat(tmp_path / "gpt", tensors)
    with pytest.raises(WeightsError, match=re.escape(name)):
        take(model(), folder)


def drop(tensors: Tensors) -> Tensors:
    return {n: v for n, v in tensors.items() if "layers.1.mlp" not in n}


def add(tensors: Tensors) -> Tensors:
    return tensors | {"vision_encoder.something.new": torch.ones(1)}


def reshape(tensors: Tensors) -> Tensors:
    name = next(n for n in tensors if n.endswith("layers.0.layer_norm1.weight"))
    return tensors | {name: torch.ones(7)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"4 .*missing: encoder.sam.layers.1.mlp.lin1.weight, .*, \.\.\."),
        (add, "1 .*unknown: vision_encoder.something.new"),
        (reshape, r"layers.0.layer_norm1.weight .*\[7\].*\[48\]"),
    ],
)
def test_missing_unknown_and_misshapen_tensors_are_refused(
    tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    target = model()
    before = {n: v.detach().clone() for n, v in target.named_parameters()}
    folder = write_safetensors(tmp_path / "sam", change(sam_checkpoint(random_model(5))))
    with pytest.raises(WeightsError, match=message):
        take(target, folder)
    assert all(torch.equal(v, before[n]) for n, v in target.named_parameters())


def test_folders_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model_000001.pt").write_bytes(b"")  # without its meta
    with pytest.raises(SourceError, match=f"{tmp_path}: missing weights: model_"):
        take(model(), tmp_path)
    with pytest.raises(UsageError, match="nowhere"):
        take(model(), str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="three/part/name"):
        take(model(), "three/part/name")


@pytest.mark.parametrize(
    ("name", "content"),
    [("meta_021400.json", "{"), ("meta_021400.json", "[]"), ("model_021400.pt", "PK corrupted")],
)
def test_corrupted_files_of_a_source_are_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_nanochat(tmp_path / "gpt", nanochat_checkpoint(random_model(5)))
    (Path(folder) / name).write_text(content)
    with pytest.raises(WeightsError, match=name):
        take(model(), folder)
    shutil.rmtree(folder)
    Path(folder).mkdir()
    (Path(folder) / "model.safetensors").write_text("corrupted")
    with pytest.raises(WeightsError, match=r"model\.safetensors: "):
        take(model(), folder)
