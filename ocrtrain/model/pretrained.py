"""Pretrained weights of SAM, CLIP and nanochat, from the hub or from local folders.

A source is a hub repository, `owner/name` or `owner/name@revision`, or a folder with the same
files. Missing and unknown tensors are errors (`ocrtrain.model.tensor_names.assign`). The decoder's
head count is compared with the one in its checkpoint: tensors load with a wrong head count too,
which moves the logits by a third of their range.
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
    """Source of each part's weights; "" leaves the part unchanged."""

    sam: str
    clip: str
    gpt: str


def load_pretrained(model: OcrModel, config: ModelConfig, *, sources: Pretrained) -> None:
    """Copy pretrained weights into SAM, CLIP and the decoder of `model`.

    The two strided convolutions, the projector, the newline and the separator are in no checkpoint
    and stay unchanged. Raises UsageError for an invalid source, SourceError where its files cannot
    be fetched, WeightsError where they are corrupted or do not fit `config`; a part whose source
    fails is unchanged.
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
    """The latest `model_*.pt` with its `meta_*.json`, else `pytorch_model.bin` with a config."""
    steps = sorted(
        (
            name[6:-3]
            for name in names
            if name.startswith("model_") and name.endswith(".pt") and name[6:-3].isdecimal()
        ),
        key=int,
    )
    for step in reversed(steps):
        if f"meta_{step}.json" in names:
            return [f"model_{step}.pt", f"meta_{step}.json"]
    metas = sorted(
        (
            name
            for name in names
            if name.startswith("meta_") and name.endswith(".json") and name[5:-5].isdecimal()
        ),
        key=lambda name: int(name[5:-5]),
    )
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
        raise _newer_architecture(what, newer[0])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            tensors[name] = _with_image_row(tensors[name], config.vocab_size)
    assign(model.gpt, tensors, what=what)


# In names of parameters since 2026: value embeddings, residual scales, smearing, backout.
_NEWER = ("value_embed", "ve_gate", "resid_lambda", "x0_lambda", "smear", "backout")


def _newer_architecture(what: str, evidence: str) -> WeightsError:
    return WeightsError(
        f"{what}: made by a newer nanochat with another architecture ({evidence}); "
        "use a checkpoint from before 2026, such as nanochat-students/base-d20"
    )


def _check_nanochat_config(meta: dict[str, Any], config: ModelConfig, *, what: str) -> None:
    """Raise WeightsError unless the sizes in `meta` (nanochat's or transformers' names) fit."""
    sizes = meta.get("model_config", meta)
    if "window_pattern" in sizes:
        raise _newer_architecture(what, "window_pattern")
    wanted = (
        ("n_head", "num_attention_heads", "gpt_heads", config.gpt_heads),
        ("n_kv_head", "num_key_value_heads", "gpt_heads", config.gpt_heads),
        ("n_layer", "num_hidden_layers", "gpt_layers", config.gpt_layers),
        ("n_embd", "hidden_size", "gpt_width", config.gpt_width),
    )
    for name, other, field, value in wanted:
        found = sizes.get(name, sizes.get(other))
        if found is None:
            raise WeightsError(
                f"{what}: {name} is missing from its config and cannot be inferred from the tensors"
            )
        if found != value:
            raise WeightsError(
                f"{what}: {name} is {found}, but the model has {field} {value}; "
                f"set --{field.replace('_', '-')} {found}"
            )


def _with_image_row(table: Tensor, vocab: int) -> Tensor:
    """[vocab - 1, D] -> [vocab, D]: append a row for the image token, the mean of the others.

    Its embedding is never used (features replace it) and it is never a label, but its logit is part
    of every softmax. With the mean row it starts as likely as an average token; zeros or noise
    would first have to be unlearned. Other shapes are returned unchanged.
    """
    if len(table) != vocab - 1:
        return table
    return torch.cat([table, table.float().mean(dim=0, keepdim=True).to(table.dtype)])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"{path}: malformed JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return value
