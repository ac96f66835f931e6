"""Which source each part of a model is taken from, and which configs are refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import tiktoken
import torch

from ocrdata.errors import SourceError, UsageError
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, bytes_tokenizer, train_tokenizer
from ocrtrain.model.encoder_file import save_deepencoder
from ocrtrain.model.factory import bare_model, find_tokenizer, new_model, with_vocabulary
from ocrtrain.model.ocr_model import OcrModel, part_of
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import PARTS
from tests.support.pretrained import (
    CONFIG,
    clip_checkpoint,
    nanochat_checkpoint,
    random_model,
    sam_checkpoint,
    write_nanochat,
    write_safetensors,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Its vocabulary has the size in `CONFIG`; the image token is the last."""
    return train_tokenizer(["What colour is it? Red, green, blue."] * 3, CONFIG.vocab_size)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """--init pretrained, with sources that do not exist."""
    nowhere = str(tmp_path / "nowhere")
    return Config(
        model=CONFIG, image_size=128, sam_repo=nowhere, clip_repo=nowhere, gpt_repo=nowhere
    )


def parameters(model: OcrModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal_parts(one: OcrModel, other: OcrModel) -> set[str]:
    """The parts in which all parameters are equal."""
    pairs = [(part_of(n), torch.equal(v, other.get_parameter(n))) for n, v in
             one.named_parameters()]  # fmt: skip
    return {part for part, _ in pairs} - {part for part, same in pairs if not same}


def test_the_given_tokenizer_file_is_used(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    for init in ("random", "pretrained"):
        found = find_tokenizer(replace(config, init=init, tokenizer=str(path)))
        assert found.fingerprint == tokenizer.fingerprint


def test_random_weights_have_the_bytes_by_default(config: Config) -> None:
    expected = bytes_tokenizer().fingerprint
    assert find_tokenizer(replace(config, init="random")).fingerprint == expected
    assert find_tokenizer(replace(config, tokenizer="bytes")).fingerprint == expected


def test_the_default_tokenizer_is_nanochats(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: "):
        find_tokenizer(config)
    with pytest.raises(SourceError, match=r"tokenizer\.pkl"):
        find_tokenizer(replace(config, gpt_repo=str(tmp_path)))
    ranks = {bytes([number]): number for number in range(256)}
    encoding = tiktoken.Encoding(
        "nanochat",
        pat_str=r"\p{L}+|\P{L}",
        mergeable_ranks=ranks,
        special_tokens={name: 256 + n for n, name in enumerate(SPECIAL_TOKENS[:-1])},
    )
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding))
    found = find_tokenizer(replace(config, gpt_repo=str(tmp_path)))
    assert found.vocab_size == 256 + len(SPECIAL_TOKENS)
    assert found.image == found.vocab_size - 1


def test_the_vocabulary_size_is_the_tokenizers(config: Config, tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    for given in (0, size):
        request = replace(config, model=replace(CONFIG, vocab_size=given))
        found = with_vocabulary(request, tokenizer)
        assert found == replace(config, model=replace(CONFIG, vocab_size=size))
    for given in (size - 1, size + 1, 65537):
        request = replace(config, model=replace(CONFIG, vocab_size=given))
        with pytest.raises(UsageError, match=f" {size} tokens.*--vocab-size .*{given}"):
            with_vocabulary(request, tokenizer)


def test_random_weights_depend_on_the_seed_only(config: Config, tokenizer: Tokenizer) -> None:
    random = replace(config, init="random")
    one = parameters(new_model(random, tokenizer))
    torch.manual_seed(99)  # must not matter
    again, other = (parameters(new_model(replace(random, seed=s), tokenizer)) for s in (0, 1))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_pretrained_parts_are_loaded_from_their_folders(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_model(seed=5)
    local = replace(
        config,
        sam_repo=write_safetensors(tmp_path / "sam", sam_checkpoint(source)),
        clip_repo=write_safetensors(tmp_path / "clip", clip_checkpoint(source)),
        gpt_repo=write_nanochat(tmp_path / "gpt", nanochat_checkpoint(source)),
    )
    made, bare = new_model(local, tokenizer), bare_model(local, tokenizer)
    assert equal_parts(made, source) == {"clip"}  # in SAM the strided convolutions stay random, ...
    assert equal_parts(made, bare) == {"projector"}
    for name, value in made.encoder.sam.named_parameters():
        origin = bare if name.startswith("proj.") else source
        assert torch.equal(value, origin.encoder.sam.get_parameter(name)), name
    for name, value in made.gpt.named_parameters():
        if (
            value.shape[0] != CONFIG.vocab_size
        ):  # ... embedding and head get a row for the image token
            assert torch.equal(value, source.gpt.get_parameter(name)), name
    fresh = new_model(replace(local, fresh_gpt=True), tokenizer)
    assert equal_parts(fresh, bare) == {"projector", "gpt"}
    assert equal_parts(fresh, source) == {"clip"}


def test_an_encoder_file_replaces_the_hubs_encoders(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_model(seed=5)
    path = tmp_path / "deepencoder_000001.safetensors"
    save_deepencoder(source, path, {})
    given = replace(config, deepencoder=str(path))
    bare = bare_model(given, tokenizer)
    for init, fresh in (("random", False), ("random", True), ("pretrained", True)):
        made = new_model(replace(given, init=init, fresh_gpt=fresh), tokenizer)
        assert equal_parts(made, source) == {"sam", "clip", "projector"}
        assert equal_parts(made, bare) == {"gpt"}


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "sam"),
        ({"fresh_gpt": True}, "sam"),
        ({"sam_repo": "folder"}, "clip"),
        ({"deepencoder": "file"}, "gpt"),
    ],
)
def test_only_needed_sources_are_fetched(
    config: Config, tokenizer: Tokenizer, tmp_path: Path, values: dict[str, object], missing: str
) -> None:
    """None of the three repositories exists; the error names the first that is fetched."""
    source = random_model(seed=5)
    folder = write_safetensors(tmp_path / "sam", sam_checkpoint(source))
    save_deepencoder(source, tmp_path / "file", {})
    real = {"folder": folder, "file": str(tmp_path / "file")}
    given = {name: real.get(str(value), value) for name, value in values.items()}
    names = {f"{part}_repo": str(tmp_path / f"no-{part}") for part in ("sam", "clip", "gpt")}
    with pytest.raises(UsageError, match=f"no-{missing}: "):
        new_model(replace(config, **{**names, **given}), tokenizer)


@pytest.mark.parametrize("frozen", [(), ("sam",), ("clip", "projector", "gpt"), PARTS[:3]])
def test_frozen_parts_are_not_trained(
    config: Config, tokenizer: Tokenizer, frozen: tuple[str, ...]
) -> None:
    model = new_model(replace(config, init="random", freeze=frozen), tokenizer)
    trained = {part_of(name) for name, p in model.named_parameters() if p.requires_grad}
    fixed = {part_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    assert (trained, fixed) == (set(PARTS) - set(frozen), set(frozen))


@pytest.mark.parametrize("enabled", [False, True])
def test_checkpointing_is_set_on_every_block(
    config: Config, tokenizer: Tokenizer, enabled: bool
) -> None:
    model = new_model(replace(config, init="random", checkpointing=enabled), tokenizer)
    found = {
        module.gradient_checkpointing
        for module in model.modules()
        if type(module).__name__.endswith("Layer") and hasattr(module, "gradient_checkpointing")
    }
    assert found == {enabled}


def test_patch_scale_multiplies_the_embedding_of_patches_alone(
    config: Config, tokenizer: Tokenizer
) -> None:
    plain = parameters(bare_model(config, tokenizer))
    scaled = parameters(bare_model(replace(config, patch_scale=4.0), tokenizer))
    changed = {name for name in plain if not torch.equal(plain[name], scaled[name])}
    embedding = "encoder.sam.patch_embed.projection"
    assert changed == {f"{embedding}.weight", f"{embedding}.bias"}
    assert all(torch.equal(4 * plain[name], scaled[name]) for name in changed)
