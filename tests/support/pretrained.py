"""Small checkpoints in the formats of the hub's, with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ocrtrain.model.ocr_model import OcrModel, build_model
from ocrtrain.model.pretrained import Fitting, check_weights, copy_weights, find_weights, shapes_of
from ocrtrain.model.tensor_names import _NANOCHAT, rename
from tests.support.encoders import SMALL, randomise

Tensors = dict[str, Tensor]

CONFIG = replace(SMALL, sam_layers=2, sam_global_layers=(1,), clip_layers=2)

GPT_SIZES = {
    "n_head": CONFIG.gpt_heads,
    "n_kv_head": CONFIG.gpt_heads,
    "n_layer": CONFIG.gpt_layers,
    "n_embd": CONFIG.gpt_width,
    "vocab_size": CONFIG.vocab_size - 1,
    "sequence_len": 64,
}


def model(seed: int = 0) -> OcrModel:
    return build_model(CONFIG, image_size=128, image_token=CONFIG.vocab_size - 1, seed=seed)


def random_model(seed: int) -> OcrModel:
    result = model()
    randomise(result, seed=seed)
    return result


def sam_checkpoint(source: OcrModel) -> Tensors:
    """In the format of `facebook/sam-vit-base`: the encoder, and decoders that are not used."""
    own = source.encoder.sam.named_parameters()
    found = {f"vision_encoder.{n}": v.detach() for n, v in own if not n.startswith("proj.")}
    found["shared_image_embedding.positional_embedding"] = torch.ones(2, 8)
    found["prompt_encoder.no_mask_embed.weight"] = torch.ones(1, 8)
    found["mask_decoder.iou_token.weight"] = torch.ones(1, 8)
    return found


def clip_checkpoint(source: OcrModel) -> Tensors:
    """In the format of `openai/clip-vit-large-patch14`: both towers, and old releases' buffers."""
    width = CONFIG.clip_width
    found = {f"vision_model.{n}": v.detach() for n, v in source.encoder.clip.named_parameters()}
    found["vision_model.embeddings.patch_embedding.weight"] = torch.ones(width, 3, 14, 14)
    found["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    found["vision_model.post_layernorm.weight"] = torch.ones(width)
    found["vision_model.post_layernorm.bias"] = torch.ones(width)
    found["text_model.embeddings.token_embedding.weight"] = torch.ones(9, 8)
    found["text_projection.weight"] = torch.ones(8, 8)
    found["visual_projection.weight"] = torch.ones(8, width)
    found["logit_scale"] = torch.tensor(4.6)
    return found


def to_nanochat(gpt: nn.Module) -> Tensors:
    """Parameters of the decoder under nanochat's names."""
    back = tuple((ours, theirs) for theirs, ours in _NANOCHAT)
    return {
        rename(f"gpt.{name}", back): value.detach().clone()
        for name, value in gpt.named_parameters()
    }


def take(target: OcrModel, source: str | Path, *parts: str) -> Fitting:
    """Copy parts of a source into a model, as a flag that names them does."""
    found = find_weights(str(source))
    fitting = check_weights(
        found, target.config, shapes_of(target), parts=parts or found.parts, optional=()
    )
    copy_weights(target, fitting)
    return fitting


def parameters(model: OcrModel) -> Tensors:
    """Copies of a model's parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def nanochat_checkpoint(source: OcrModel) -> Tensors:
    """In nanochat's format: names of a compiled model, bf16 embeddings, no image token row."""
    found = {f"_orig_mod.{n}": v.clone() for n, v in to_nanochat(source.gpt).items()}
    for name in ("transformer.wte", "lm_head"):
        found[f"_orig_mod.{name}.weight"] = found[f"_orig_mod.{name}.weight"][:-1].clone()
    wte = "_orig_mod.transformer.wte.weight"
    return found | {wte: found[wte].bfloat16()}


def write_safetensors(folder: Path, tensors: Tensors) -> str:
    folder.mkdir(parents=True)
    save_file({n: v.contiguous() for n, v in tensors.items()}, folder / "model.safetensors")
    return str(folder)


def write_nanochat(folder: Path, tensors: Tensors, sizes: dict[str, object] | None = None) -> str:
    folder.mkdir(parents=True)
    for step, scale in (("000500", 0.0), ("021400", 1.0)):  # the latest is loaded
        torch.save({n: v * scale for n, v in tensors.items()}, folder / f"model_{step}.pt")
        meta = {"step": int(step), "model_config": GPT_SIZES if sizes is None else sizes}
        (folder / f"meta_{step}.json").write_text(json.dumps(meta))
    (folder / "model_021400_backup.pt").write_bytes(b"not this one")
    return str(folder)
