"""Starting from anything: each kind of weights gives the right values, and what is not taken or
starts fresh is said; what does not fit is refused by field and value."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ocrdata.errors import SourceError, TrainError, UsageError, WeightsError
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from ocrtrain.model.encoder_file import save_deepencoder
from ocrtrain.model.factory import bare_model, find_tokenizer, new_model, with_vocabulary
from ocrtrain.model.ocr_model import OcrModel, part_of
from ocrtrain.model.start import check_start
from ocrtrain.model.tensor_names import to_deepencoder
from ocrtrain.run.launch import train
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import PARTS
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State
from tests.support.data import small_config
from tests.support.hub import Hub
from tests.support.pretrained import (
    CONFIG,
    GPT_SIZES,
    Tensors,
    clip_checkpoint,
    model,
    random_model,
    sam_checkpoint,
    to_nanochat,
    write_nanochat,
    write_safetensors,
)

ENCODER = {"sam", "clip", "projector"}
VOCABULARY = CONFIG.vocab_size


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Its vocabulary has the size in `CONFIG`; the image token is the last."""
    return train_tokenizer(["What colour is it? Red, green, blue."] * 3, VOCABULARY)


@pytest.fixture
def config() -> Config:
    """--init ..., with all that is not from there random."""
    return Config(model=CONFIG, image_size=128, preset="tiny", init="random")


def write_run(folder: Path, source: OcrModel, tokenizer: Tokenizer, step: int = 7) -> Path:
    """A checkpoint of a run."""
    config = Config(model=source.config, image_size=source.image_size, out=str(folder))
    checkpoint.save(
        folder, State(step=step), config=config, tokenizer=tokenizer,
        tensors=checkpoint.collect(source, build_optimizer(source, config)),
    )  # fmt: skip
    return folder


def equal_parts(one: OcrModel, other: OcrModel) -> set[str]:
    """The parts in which all parameters are equal."""
    pairs = [(part_of(n), torch.equal(v, other.get_parameter(n))) for n, v in
             one.named_parameters()]  # fmt: skip
    return {part for part, _ in pairs} - {part for part, same in pairs if not same}


def started(config: Config, tokenizer: Tokenizer) -> tuple[OcrModel, str]:
    """The model that a config starts from, and what is said of it."""
    lines: list[str] = []
    check_start(config)
    made = new_model(config, tokenizer, say=lines.append)
    return made, "\n".join(lines)


def original(source: OcrModel) -> Tensors:
    """The original project's step_*.pt."""
    gpt = {f"gpt.{name}": value for name, value in to_nanochat(source.gpt).items()}
    return {n: v.clone() for n, v in to_deepencoder(source.encoder).items()} | gpt


# Runs of ours


def test_a_run_gives_all_its_parts_and_its_tokenizer(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new run has another rate, other data, another length of rows and other images."""
    first = small_config(inputs, tmp_path / "first", steps=2, eval_every=0)
    assert train(first) == 0
    second = small_config(
        inputs, tmp_path / "second", init=first.out, tokenizer="", steps=1, lr=1e-9, warmup=0,
        text=(inputs["text"],), seq_len=96, image_size=128, eval_every=0,
    )  # fmt: skip
    capsys.readouterr()
    assert train(second) == 0
    shown = capsys.readouterr().out
    newest = tmp_path / "first" / "checkpoints" / "step_000002"
    tensors = len(checkpoint.Checkpoint.open(newest).weights())
    parts = f"weights of sam, clip, projector and gpt ({tensors} tensors)"
    assert f"{parts} from {newest}, verified" in shown
    assert "64 px, used at 128 px" in shown and "random initial weights" not in shown
    old = checkpoint.Checkpoint.open(newest)
    new = checkpoint.Checkpoint.open(checkpoint.newest(tmp_path / "second"))
    assert new.tokenizer().fingerprint == old.tokenizer().fingerprint
    for name, value in new.weights().items():
        torch.testing.assert_close(value, old.weights()[name], rtol=0, atol=1e-6)
    shutil.rmtree(tmp_path / "first")  # nothing is needed of it to go on
    assert train(replace(second, stop_at=0), resume=True) == 0


@pytest.mark.parametrize(
    "place", ["", "checkpoints/step_000007", "checkpoints/step_000007/model.safetensors"]
)
def test_the_newest_checkpoint_of_a_run_is_taken(
    place: str, config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:  # fmt: skip
    write_run(tmp_path, random_model(3), tokenizer, step=6)
    write_run(tmp_path, random_model(5), tokenizer)
    made, said = started(replace(config, init=str(tmp_path / place)), tokenizer)
    assert equal_parts(made, random_model(5)) == set(PARTS)
    assert "step_000007, verified" in said


@pytest.mark.parametrize(
    ("parts", "taken"), [(("sam", "clip"), {"sam", "clip"}), (("gpt",), {"gpt"}), ((), {*PARTS})]
)
def test_parts_that_are_not_taken_start_as_without_the_path(
    parts: tuple[str, ...], taken: set[str], config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", random_model(5), tokenizer)
    local = replace(config, init=str(run), init_parts=parts)
    made, said = started(local, tokenizer)
    assert equal_parts(made, random_model(5)) == taken
    assert equal_parts(made, bare_model(local, tokenizer)) == {*PARTS} - taken
    for part in {*PARTS} - taken:
        assert part in said.partition("random initial weights: ")[2]
        assert part in said.partition("not taken: its ")[2].splitlines()[0]
    hub = {
        "sam_repo": write_safetensors(tmp_path / "sam", sam_checkpoint(random_model(6))),
        "clip_repo": write_safetensors(tmp_path / "clip", clip_checkpoint(random_model(6))),
        "gpt_repo": write_nanochat(tmp_path / "gpt", to_nanochat(random_model(6).gpt)),
    }
    if "gpt" in taken:  # a preset of hub weights fills the gaps from there
        made, said = started(replace(local, preset="full", **hub), tokenizer)
        assert equal_parts(made, random_model(5)) == taken
        assert ("clip" in equal_parts(made, random_model(6))) == ("clip" not in taken)
        assert ("2 of 39 tensors of sam (encoder.sam.proj.conv1.weight" in said) == (
            "sam" not in taken
        )


def test_stage_2_takes_the_encoder_and_a_fresh_gpt(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", random_model(5), tokenizer)
    stage2 = replace(config, init=str(run), fresh_gpt=True, freeze=("sam",))
    made, said = started(stage2, tokenizer)
    assert equal_parts(made, random_model(5)) == ENCODER
    assert "not taken: its gpt" in said and "random initial weights: gpt" in said
    with pytest.raises(UsageError, match="--freeze sam: 39 of its tensors start from random"):
        started(replace(stage2, init_parts=("clip",)), tokenizer)


def test_a_damaged_checkpoint_is_refused(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = write_run(tmp_path, random_model(5), tokenizer) / (
        "checkpoints/step_000007/model.safetensors"
    )
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(TrainError, match=rf"^{file}: checksum mismatch"):
        started(replace(config, init=str(tmp_path)), tokenizer)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpt_heads": 2}, "gpt_heads is 4, .* gpt_heads 2; set --gpt-heads 4"),
        ({"sam_heads": 2}, "sam_heads is 4, .* sam_heads 2; set --sam-heads 4"),
        ({"clip_heads": 8}, "clip_heads is 4, .* clip_heads 8; set --clip-heads 4"),
        ({"rope_theta": 1e5}, "rope_theta is 10000.0, .* 100000.0; set --rope-theta 10000.0"),
        ({"sam_window": 4}, "sam_window is 5, .* sam_window 4; set --sam-window 5"),
        ({"sam_grid": 16}, "sam_grid is 8, .* sam_grid 16; set --sam-grid 8"),
        ({"gpt_mlp": 80}, "gpt_mlp is 160, .* gpt_mlp 80; set --gpt-mlp 160"),
        ({"sam_layers": 3}, "sam_layers is 2, .* sam_layers 3; set --sam-layers 2"),
    ],
)
@pytest.mark.parametrize("kind", ["run", "encoder"])
def test_files_of_ours_for_another_model_are_refused_by_field(
    kind: str, values: dict[str, Any], message: str, config: Config, tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Before the model is built: `check_start` reads no value."""
    if kind == "run":
        path = write_run(tmp_path, random_model(5), tokenizer)
    else:
        if any(name.startswith(("gpt", "rope")) for name in values):
            return
        path = tmp_path / "deepencoder_000001.safetensors"
        save_deepencoder(random_model(5), path, {})
    other = replace(config, init=str(path), model=replace(CONFIG, **values))
    with pytest.raises(WeightsError, match=message) as caught:
        check_start(other)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_run_of_another_preset_is_refused_with_its_name(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = write_run(tmp_path, random_model(5), tokenizer)
    with pytest.raises(WeightsError, match=r"sam_width is 48.* 16 more: made with --preset full"):
        check_start(replace(config, init=str(run), model=Config().model))


def test_the_gpt_of_a_run_needs_its_tokenizer(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", random_model(5), tokenizer)
    other = train_tokenizer(["Another text, with other words."] * 3, VOCABULARY)
    other.save(tmp_path / "other.json")
    tokenizer.save(tmp_path / "same.json")
    local = replace(config, init=str(run))
    assert find_tokenizer(local).fingerprint == tokenizer.fingerprint
    same = find_tokenizer(replace(local, tokenizer=str(tmp_path / "same.json")))
    assert same.fingerprint == tokenizer.fingerprint
    with pytest.raises(UsageError, match=r"--tokenizer \S*other\.json .*--init .*--init-parts"):
        find_tokenizer(replace(local, tokenizer=str(tmp_path / "other.json")))
    for without in ({"fresh_gpt": True}, {"init_parts": ("sam",)}):
        free = replace(local, tokenizer=str(tmp_path / "other.json"), **without)
        assert find_tokenizer(free).fingerprint == other.fingerprint
        bytes_size = find_tokenizer(replace(local, **without)).vocab_size
        assert bytes_size == load_tokenizer("bytes").vocab_size
    smaller = load_tokenizer("bytes")
    sizes = with_vocabulary(replace(local, model=replace(CONFIG, vocab_size=0)), smaller)
    with pytest.raises(WeightsError, match=f"vocab_size is {VOCABULARY}, .* {smaller.vocab_size} "):
        new_model(sizes, smaller)


# Encoder files, and the original's .pt


def test_a_folder_says_which_encoder_file_is_taken(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_run(tmp_path, random_model(3), tokenizer)
    for step, seed in (("000090", 4), ("001000", 5)):
        save_deepencoder(random_model(seed), tmp_path / f"deepencoder_{step}.safetensors", {})
    made, said = started(replace(config, deepencoder=str(tmp_path)), tokenizer)
    assert equal_parts(made, random_model(5)) == ENCODER
    assert f"from {tmp_path}/deepencoder_001000.safetensors, verified" in said
    made, _ = started(replace(config, init=str(tmp_path)), tokenizer)
    assert equal_parts(made, random_model(3)) == set(PARTS)  # --init: the newest checkpoint
    for path in tmp_path.glob("deepencoder_*"):
        path.unlink()
    made, said = started(replace(config, deepencoder=str(tmp_path)), tokenizer)
    assert equal_parts(made, random_model(3)) == ENCODER and "step_000007" in said


def test_an_encoder_and_the_gpt_of_a_run_may_be_combined(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", random_model(3), tokenizer)
    save_deepencoder(random_model(5), tmp_path / "deepencoder_000001.safetensors", {})
    both = replace(
        config, init=str(run), deepencoder=str(tmp_path / "deepencoder_000001.safetensors")
    )
    made, _ = started(both, tokenizer)
    assert equal_parts(made, random_model(5)) == ENCODER
    assert equal_parts(made, random_model(3)) == {"gpt"}
    with pytest.raises(UsageError, match=r"--init .*run: has sam, .*--fresh-gpt"):
        started(replace(both, fresh_gpt=True), tokenizer)


def compiled_inside(tensors: Tensors) -> Tensors:
    return {n.replace("_model.", "_model._orig_mod."): v for n, v in tensors.items()}


WRAPPINGS: dict[str, Callable[[Tensors], Any]] = {
    "plain": lambda tensors: tensors,
    "module": lambda tensors: {f"module.{n}": v for n, v in tensors.items()},
    "both": lambda tensors: {f"_orig_mod.module.{n}": v for n, v in tensors.items()},
    "inside": compiled_inside,
    "model": lambda tensors: {"model": tensors, "step": 3},
    "nested": lambda tensors: {"state_dict": {"model": tensors}},
    "parameters": lambda tensors: {n: torch.nn.Parameter(v) for n, v in tensors.items()},
}


@pytest.mark.parametrize("name", ["deepencoder_1000.pt", "step_1000.pt"])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_files_of_the_original_project(
    wrap: Callable[[Tensors], Any], name: str, config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_model(5)
    whole = name.startswith("step")
    tensors = original(source) if whole else to_deepencoder(source.encoder)
    torch.save(wrap(dict(tensors)), tmp_path / name)
    made, said = started(replace(config, init=str(tmp_path / name)), tokenizer)
    assert equal_parts(made, source) == (set(PARTS) if whole else ENCODER)
    assert "sam_heads is not recorded there: the model's, 4, is assumed" in said
    assert ("gpt_heads is not recorded" in said) == whole
    assert ("what else the file holds, step" in said) == (wrap is WRAPPINGS["model"])


def test_the_newest_file_of_the_originals_folder_is_taken(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for step, seed in ((900, 4), (1000, 5)):
        torch.save(original(random_model(seed)), tmp_path / f"step_{step}.pt")
    made, said = started(replace(config, init=str(tmp_path)), tokenizer)
    assert equal_parts(made, random_model(5)) == set(PARTS) and "step_1000.pt" in said


# nanochat


def short(source: OcrModel) -> Tensors:
    """nanochat's tensors, which have no row for the image token."""
    return {
        n: v[:-1].clone() if v.shape[0] == VOCABULARY else v
        for n, v in to_nanochat(source.gpt).items()
    }


def padded(tensors: Tensors, rows: int) -> Tensors:
    """The same with unused rows of sevens after the vocabulary."""
    return {
        n: torch.cat([v, torch.full((rows, v.shape[1]), 7.0)]) if len(v) == VOCABULARY - 1 else v
        for n, v in tensors.items()
    }


def of_transformers(source: OcrModel) -> Tensors:
    own = {n: v.detach().clone() for n, v in source.gpt.state_dict().items()}
    return {n: v[:-1].clone() if v.shape[0] == VOCABULARY else v for n, v in own.items()}


HF_SIZES = {
    "num_attention_heads": CONFIG.gpt_heads,
    "num_key_value_heads": CONFIG.gpt_heads,
    "num_hidden_layers": CONFIG.gpt_layers,
    "hidden_size": CONFIG.gpt_width,
    "vocab_size": VOCABULARY - 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "final_logit_softcapping": 15.0,
    "hidden_act": "relu2",
}


def write_hf(folder: Path, tensors: Tensors, kind: str, **values: Any) -> Path:
    """nanochat as `transformers` saves it: one file, in parts, or a .bin."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HF_SIZES | values))
    if kind == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif kind == "whole":
        save_file(tensors, folder / "model.safetensors")
    else:
        write_shards(folder, tensors, [list(tensors)[::2], list(tensors)[1::2]])
    return folder


def write_shards(folder: Path, tensors: Tensors, groups: list[list[str]]) -> None:
    """Safetensors in parts with their index."""
    owner = {}
    for number, names in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        save_file({n: tensors[n].contiguous() for n in names}, folder / file)
        owner |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owner}))


def check_gpt(made: OcrModel, source: OcrModel) -> None:
    """The decoder is the source's; the image token's row is the mean of the others."""
    for name, value in made.gpt.named_parameters():
        wanted = source.gpt.get_parameter(name)
        if value.shape[0] == VOCABULARY:
            assert torch.equal(value[:-1], wanted[:-1]), name
            torch.testing.assert_close(value[-1], wanted[:-1].mean(dim=0), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, wanted), name


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("padding", [0, 1, 65])
def test_nanochats_own_format(
    padding: int, wrap: Callable[[Tensors], Any], config: Config, tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:  # fmt: skip
    source = random_model(5)
    torch.save(wrap(padded(short(source), padding)), tmp_path / "model_000400.pt")
    (tmp_path / "meta_000400.json").write_text(json.dumps({"model_config": GPT_SIZES}))
    for init in (tmp_path, tmp_path / "model_000400.pt"):
        made, said = started(replace(config, init=str(init)), tokenizer)
        check_gpt(made, source)
        assert "the image token's row is the mean" in said
        assert (f"{padding} rows of padding" in said) == bool(padding)
        assert "random initial weights: sam, clip and projector" in said


@pytest.mark.parametrize("kind", ["bin", "whole", "parts"])
def test_nanochat_of_transformers(
    kind: str, config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_model(5)
    folder = write_hf(tmp_path / "x", of_transformers(source), kind)
    tokenizer.save(folder / "tokenizer.json")
    local = replace(config, init=str(folder))
    made, _ = started(local, tokenizer)
    check_gpt(made, source)
    assert find_tokenizer(local).fingerprint == tokenizer.fingerprint


def test_a_tied_head_is_the_embedding_and_is_said(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_model(5)
    source.gpt.lm_head.weight.data.copy_(source.gpt.model.embed_tokens.weight)
    tensors = of_transformers(source)
    del tensors["lm_head.weight"]
    folder = write_hf(tmp_path / "tied", tensors, "whole", tie_word_embeddings=True)
    made, said = started(replace(config, init=str(folder)), tokenizer)
    check_gpt(made, source)
    assert "the head is a copy of the embedding" in said
    untied = write_hf(tmp_path / "untied", tensors, "whole", tie_word_embeddings=False)
    with pytest.raises(WeightsError, match=r"1 tensor missing: gpt\.lm_head\.weight"):
        started(replace(config, init=str(untied)), tokenizer)


def test_a_vocabulary_of_another_tokenizer_is_refused(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tensors = short(random_model(5))
    for number, (size, found) in enumerate(((VOCABULARY - 9, "is 291, with 299"), (400, "is 400"))):
        folder = write_nanochat(tmp_path / str(number), tensors, GPT_SIZES | {"vocab_size": size})
        with pytest.raises(WeightsError, match=f"vocab_size {found}.* 300 tokens"):
            started(replace(config, init=folder), tokenizer)


# DeepSeek-OCR's release


def released(source: OcrModel) -> Tensors:
    encoder = {
        "model." + name.replace("separator", "seperator"): value.clone()
        for name, value in to_deepencoder(source.encoder).items()
    }
    encoder["model.vision_model.embeddings.patch_embedding.weight"] = torch.ones(32, 3, 14, 14)
    return encoder


DECODER: Tensors = {
    "model.embed_tokens.weight": torch.zeros(10, 4),
    "model.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4),
    "model.layers.1.mlp.experts.0.gate_proj.weight": torch.zeros(4, 4),
    "model.norm.weight": torch.zeros(4),
    "lm_head.weight": torch.zeros(10, 4),
}
RELEASE_CONFIG = {
    "model_type": "deepseek_vl_v2",
    "vision_config": {
        "width": {
            "clip-l-14-224": {"heads": 4, "layers": 2, "width": 32, "patch_size": 14},
            "sam_vit_b": {"heads": 4, "layers": 2, "width": 48, "global_attn_indexes": [1]},
        }
    },
    "projector_config": {"projector_type": "linear", "input_dim": 64, "n_embed": 40},
    "language_config": {"hidden_size": 40, "n_routed_experts": 64},
}


def write_release(folder: Path, source: OcrModel, config: dict[str, Any] | None = None) -> Path:
    """The encoder in one file, the decoder in another."""
    folder.mkdir()
    tensors = released(source) | DECODER
    write_shards(folder, tensors, [list(released(source)), list(DECODER)])
    (folder / "config.json").write_text(json.dumps(config or RELEASE_CONFIG))
    return folder


def test_the_encoder_of_the_release_without_its_decoder(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "release", random_model(5))
    (folder / "model-00002-of-00002.safetensors").unlink()  # not needed, and so not read
    local = replace(config, init=str(folder))
    made, said = started(local, tokenizer)
    assert equal_parts(made, random_model(5)) == ENCODER
    assert "not taken: 5 tensors (model.embed_tokens.weight, ...): its decoder, a mixture" in said
    assert "random initial weights: gpt" in said and "is assumed" not in said
    with pytest.raises(WeightsError, match=r"--init .* has no gpt; it has sam, clip, projector"):
        started(replace(local, init_parts=("gpt",)), tokenizer)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(SourceError, match=r"missing model-00001-of-00002\.safetensors"):
        started(local, tokenizer)


def test_one_file_of_the_release_with_all_in_it(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "model-00001-of-000001.safetensors"
    save_file({n: v.contiguous() for n, v in (released(random_model(5)) | DECODER).items()}, path)
    made, said = started(replace(config, init=str(path)), tokenizer)
    assert equal_parts(made, random_model(5)) == ENCODER
    assert "5 tensors" in said and "sam_heads is not recorded" in said


def test_a_projector_of_another_width_starts_fresh_and_is_said(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "release", random_model(5))
    narrow = replace(config, init=str(folder), model=replace(CONFIG, gpt_width=24, gpt_mlp=96))
    made, said = started(narrow, tokenizer)
    for name in ("sam", "clip"):
        for key, value in getattr(made.encoder, name).named_parameters():
            assert torch.equal(value, getattr(random_model(5).encoder, name).get_parameter(key))
    assert "the projector is not taken: its gpt_width is 40, the model's 24" in said
    assert "random initial weights: projector and gpt" in said
    with pytest.raises(WeightsError, match=r"n_embed is 40, .*gpt_width 24; set --gpt-width 40"):
        started(replace(narrow, init_parts=("projector",)), tokenizer)


HUB = """
import sys
from pathlib import Path
from ocrtrain.model.pretrained import find_weights
weights = find_weights("deepseek-ai/DeepSeek-OCR")
stored = weights.open([piece.name for piece in weights.names.taken.values()])
print(weights.what, len(stored.shapes), *weights.parts)
"""


def test_of_a_repository_on_the_hub_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    """In a process of its own: HF_ENDPOINT is read when huggingface_hub is imported."""
    folder = write_release(tmp_path / "release", random_model(5))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub({"deepseek-ai/DeepSeek-OCR": files}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", HUB], capture_output=True, text=True, check=False, timeout=60,
            env={"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = "model.safetensors.index.json"
    tensors = len(released(model()))
    assert done.stdout == f"deepseek-ai/DeepSeek-OCR ({index}) {tensors} sam clip projector\n"
    fetched = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_symlink()}
    assert fetched == {index, "config.json", "model-00001-of-00002.safetensors"}


# What is refused


def test_quantised_and_infinite_values_are_refused(
    config: Config, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    good = to_deepencoder(random_model(5).encoder)
    name = "sam_model.neck.0.weight"
    bad = good[name].clone()
    bad[0] = torch.nan
    for value, message in ((good[name].to(torch.int8), "int8"), (bad, "not finite")):
        torch.save(good | {name: value}, tmp_path / "x.pt")
        with pytest.raises(WeightsError, match=rf"x\.pt: {name} has .*{message}"):
            started(replace(config, init=str(tmp_path / "x.pt")), tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if "neck.2" not in n},
         "1 tensor missing: encoder.sam.neck.conv2"),
        (lambda t: t | {"sam_model.extra": torch.ones(2)}, "1 tensor unknown: sam_model.extra"),
        (lambda t: t | {"qwen2_model.x": torch.ones(2)}, "1 tensor unknown: qwen2_model.x"),
        (lambda t: t | {"image_newline": torch.ones(2)}, r"\[2\], the model's \[40\]"),
        (lambda t: {n: v for n, v in t.items() if not n.startswith(("sam", "proj", "image"))} and
         {"lm_head.weight": torch.ones(2)}, "not the weights of a known model"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[Tensors], Tensors], message: str, config: Config, tmp_path: Path
) -> None:
    torch.save(change(to_deepencoder(random_model(5).encoder)), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=rf"x\.pt: .*{message}"):
        check_start(replace(config, init=str(tmp_path / "x.pt")))


def test_a_tensor_of_no_part_is_unknown_whatever_part_is_taken(
    config: Config, tmp_path: Path
) -> None:
    torch.save(
        to_deepencoder(random_model(5).encoder) | {"eye.x": torch.ones(2)}, tmp_path / "x.pt"
    )
    with pytest.raises(WeightsError, match=r"1 tensor unknown: eye\.x"):
        check_start(replace(config, init=str(tmp_path / "x.pt"), init_parts=("sam",)))


def test_a_text_where_weights_belong_is_refused_before_anything_is_written(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    path, run = tmp_path / "weights.pt", tmp_path / "run"
    path.write_text("these are no weights")
    with pytest.raises(
        WeightsError, match=rf"^--init {path}: a text file .*these are no weights"
    ) as got:
        train(small_config(inputs, run, init=str(path)))
    assert "\n" not in str(got.value) and not run.exists()
    with pytest.raises(SourceError, match=f"^--init {tmp_path}: missing weights"):
        path.unlink()
        check_start(small_config(inputs, run, init=str(tmp_path)))


def test_random_weights_are_said_too(config: Config, tokenizer: Tokenizer) -> None:
    _, said = started(config, tokenizer)
    assert said == "random initial weights: sam, clip, projector and gpt"
