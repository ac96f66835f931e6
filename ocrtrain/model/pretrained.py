"""Pretrained weights: SAM, CLIP and nanochat, from the hub or from local folders.

Owner of what is fetched and of the checks that it fits. Every tensor is accounted for
(`ocrtrain.model.tensor_names.assign`), and the decoder's head count is read from its checkpoint: a
wrong one loads without a complaint and moves the logits by a third of their range. A source is a
repository of the hub, `owner/name` or `owner/name@revision`, or a folder that holds the same files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ocrdata.errors import WeightsError
from ocrtrain.model.encoder_file import read_torch_file
from ocrtrain.model.hub_files import fetch
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.tensor_names import Tensors, assign, from_clip, from_nanochat, from_sam
from ocrtrain.settings.config import ModelConfig


@dataclass(frozen=True)
class Pretrained:
    """Where each part's weights come from; "" leaves a part as it is."""

    sam: str = "facebook/sam-vit-base"
    clip: str = "openai/clip-vit-large-patch14"
    gpt: str = "nanochat-students/base-d20"


DEFAULT = Pretrained()


def load_pretrained(model: OcrModel, config: ModelConfig, *, sources: Pretrained = DEFAULT) -> None:
    """Copy pretrained weights into SAM, CLIP and the decoder of `model`.

    What no checkpoint has stays as it was: the two strided convolutions, the projector, newline
    and separator. Raises SourceError where a source cannot be had, WeightsError where it does not
    fit `config`; a source that fails leaves its part unchanged.
    """
    if sources.sam:
        tensors = from_sam(_safetensors(sources.sam))
        own = model.encoder.sam.named_parameters()
        tensors |= {name: value.detach() for name, value in own if name.startswith("proj.")}
        assign(model.encoder.sam, tensors, what=f"SAM from {sources.sam}")
    if sources.clip:
        tensors = from_clip(_safetensors(sources.clip))
        assign(model.encoder.clip, tensors, what=f"CLIP from {sources.clip}")
    if sources.gpt:
        _load_nanochat(model, config, sources.gpt)


def _safetensors(source: str) -> Tensors:
    (path,) = fetch(source, _choose_safetensors, needed="model.safetensors")
    try:
        tensors: Tensors = load_file(path)
    except (SafetensorError, ValueError) as exc:
        raise WeightsError(f"{path}: cannot be read as safetensors: {exc}") from exc
    return tensors


def _choose_safetensors(names: Sequence[str]) -> list[str]:
    return ["model.safetensors"] if "model.safetensors" in names else []


def _choose_nanochat(names: Sequence[str]) -> list[str]:
    """The newest `model_*.pt` with its `meta_*.json`, else `pytorch_model.bin` with a config."""
    steps = sorted(
        name[6:-3]
        for name in names
        if name.startswith("model_") and name.endswith(".pt") and name[6:-3].isdigit()
    )
    for step in reversed(steps):
        if f"meta_{step}.json" in names:
            return [f"model_{step}.pt", f"meta_{step}.json"]
    metas = sorted(name for name in names if name.startswith("meta_") and name.endswith(".json"))
    configs = metas[-1:] or [name for name in names if name == "config.json"]
    return ["pytorch_model.bin", *configs] if "pytorch_model.bin" in names and configs else []


def _load_nanochat(model: OcrModel, config: ModelConfig, source: str) -> None:
    needed = "model_*.pt with meta_*.json, or pytorch_model.bin with config.json"
    weights, meta = fetch(source, _choose_nanochat, needed=needed)
    _check_nanochat_config(_read_json(meta), config, what=f"nanochat from {source} ({meta.name})")
    tensors = from_nanochat(read_torch_file(weights))
    what = f"nanochat from {source} ({weights.name})"
    newer = [name for name in tensors if any(word in name for word in _NEWER)]
    if newer:
        raise WeightsError(
            f"{what}: is of a newer nanochat with another architecture ({newer[0]}); "
            "a checkpoint of before 2026 is needed, such as nanochat-students/base-d20"
        )
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            tensors[name] = _with_image_row(tensors[name], config.vocab_size)
    assign(model.gpt, tensors, what=what)


# Parameters and settings of nanochat after 2025-12: value embeddings, residual scales, smearing,
# backout, attention windows.
_NEWER = ("value_embed", "ve_gate", "resid_lambda", "x0_lambda", "smear", "backout")


def _check_nanochat_config(meta: dict[str, Any], config: ModelConfig, *, what: str) -> None:
    """Compare sizes; names are nanochat's or those of `transformers`."""
    sizes = meta.get("model_config", meta)
    if "window_pattern" in sizes:
        raise WeightsError(
            f"{what}: is of a newer nanochat with another architecture (window_pattern); "
            "a checkpoint of before 2026 is needed, such as nanochat-students/base-d20"
        )
    wanted = (
        ("n_head", "num_attention_heads", "gpt_heads", config.gpt_heads),
        ("n_kv_head", "num_key_value_heads", "gpt_heads", config.gpt_heads),
        ("n_layer", "num_hidden_layers", "gpt_layers", config.gpt_layers),
        ("n_embd", "hidden_size", "gpt_width", config.gpt_width),
    )
    for name, other, field, value in wanted:
        found = sizes.get(name, sizes.get(other))
        if found is None:
            raise WeightsError(f"{what}: says nothing of {name}, which tensors alone cannot tell")
        if found != value:
            raise WeightsError(
                f"{what}: {name} is {found}, but {field} of the model is {value}; "
                f"set --{field.replace('_', '-')} {found}"
            )


def _with_image_row(table: Tensor, vocab: int) -> Tensor:
    """[vocab - 1, D] -> [vocab, D]: the image token's row, the mean of the others.

    Its embedding is never seen (features stand in its place) and it is never a target, but its
    logit is part of every softmax: the mean row is as likely as an average token, where zeros or
    noise would first have to be unlearned.
    """
    if len(table) != vocab - 1:
        return table
    return torch.cat([table, table.float().mean(dim=0, keepdim=True).to(table.dtype)])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"{path}: is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: holds no JSON object")
    return value
