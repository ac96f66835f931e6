"""Tensor names of other projects' checkpoints, converted to and from the model's own.

Four naming schemes are read. *DeepEncoder* is the one of DeepSeek-OCR (`sam_model.blocks...`,
`vision_model...` with fused `qkv_proj`, `projector.layers`); our files use it too, because it does
not change when `transformers` renames its modules. *SAM* and *CLIP* are those of the hub's
checkpoints, *nanochat* that of its `model_*.pt` before the value embeddings.

A missing or unknown tensor is an error (`assign`), so that no parameter silently stays random.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ocrdata.errors import WeightsError

Tensors = dict[str, Tensor]

# (our prefix, the original's); the first match counts; {i} is a layer number.
_SAM = (
    ("patch_embed.projection.", "patch_embed.proj."),
    ("neck.conv1.", "neck.0."),
    ("neck.layer_norm1.", "neck.1."),
    ("neck.conv2.", "neck.2."),
    ("neck.layer_norm2.", "neck.3."),
    ("proj.conv1.", "net_2."),
    ("proj.conv2.", "net_3."),
    ("layers.{i}.layer_norm1.", "blocks.{i}.norm1."),
    ("layers.{i}.layer_norm2.", "blocks.{i}.norm2."),
    ("layers.{i}.", "blocks.{i}."),
)
_CLIP = (("encoder.layers.{i}.", "transformer.layers.{i}."),)
_GPT = (
    ("model.embed_tokens.", "transformer.wte."),
    ("model.layers.{i}.self_attn.q_proj.", "transformer.h.{i}.attn.c_q."),
    ("model.layers.{i}.self_attn.k_proj.", "transformer.h.{i}.attn.c_k."),
    ("model.layers.{i}.self_attn.v_proj.", "transformer.h.{i}.attn.c_v."),
    ("model.layers.{i}.self_attn.o_proj.", "transformer.h.{i}.attn.c_proj."),
    ("model.layers.{i}.mlp.fc1.", "transformer.h.{i}.mlp.c_fc."),
    ("model.layers.{i}.mlp.fc2.", "transformer.h.{i}.mlp.c_proj."),
)
_QKV = re.compile(r"(.*\.self_attn\.)([qkv])_proj\.(weight|bias)")
_FUSED = re.compile(r"(.*\.self_attn\.)qkv_proj\.(weight|bias)")
_COMPILED = "_orig_mod."  # prefix that torch.compile adds to every name


def _rename(name: str, rules: Iterable[tuple[str, str]], *, to_original: bool) -> str:
    for ours, original in rules:
        old, new = (ours, original) if to_original else (original, ours)
        pattern = re.escape(old).replace(r"\{i\}", r"(\d+)")
        match = re.match(pattern, name)
        if match:
            layer = match.group(1) if match.groups() else ""
            return new.replace("{i}", layer) + name[match.end() :]
    return name


def to_deepencoder(encoder: nn.Module) -> Tensors:
    """Parameters of a `DeepEncoder` under DeepSeek-OCR's names."""
    tensors: Tensors = {}
    for name, parameter in encoder.named_parameters():
        value = parameter.detach()
        part, _, rest = name.partition(".")
        if part == "sam":
            tensors["sam_model." + _rename(rest, _SAM, to_original=True)] = value
        elif part == "clip":
            tensors["vision_model." + _rename(rest, _CLIP, to_original=True)] = value
        elif part == "projector":
            tensors[f"projector.layers.{rest}"] = value
        else:
            tensors[name] = value
    return _fuse(tensors)


def from_deepencoder(tensors: Mapping[str, Tensor]) -> Tensors:
    """DeepSeek-OCR's names -> a `DeepEncoder`'s. Unknown tensors keep their names.

    CLIP's patch embedding and position ids are left out: SAM's feature map replaces the patches.
    """
    ours: Tensors = {}
    for full, value in tensors.items():
        name = full.removeprefix(_COMPILED)
        part, _, rest = name.partition(".")
        if rest in ("embeddings.patch_embedding.weight", "embeddings.position_ids"):
            continue
        if part == "sam_model":
            ours["sam." + _rename(rest, _SAM, to_original=False)] = value
        elif part == "vision_model":
            ours.update(_split("clip." + _rename(rest, _CLIP, to_original=False), value))
        elif name.startswith("projector.layers."):
            ours[name.replace("projector.layers.", "projector.")] = value
        elif name == "view_seperator":  # spelled like this in DeepSeek's release
            ours["view_separator"] = value
        else:
            ours[name] = value
    return ours


def from_sam(tensors: Mapping[str, Tensor]) -> Tensors:
    """Names in `facebook/sam-vit-base` -> names in `DeepEncoder.sam`; decoders are left out."""
    others = ("shared_image_embedding.", "prompt_encoder.", "mask_decoder.")
    return {
        name.removeprefix("vision_encoder."): value
        for name, value in tensors.items()
        if not name.startswith(others)
    }


def from_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """Names in `openai/clip-vit-large-patch14` -> names in `DeepEncoder.clip`.

    Left out are the text tower, the projections, the norm after the last layer (DeepSeek-OCR has
    none), the patch embedding (SAM's feature map replaces the patches) and the position ids.
    """
    others = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    unused = ("post_layernorm.", "embeddings.patch_embedding.", "embeddings.position_ids")
    vision = {
        name.removeprefix("vision_model."): value
        for name, value in tensors.items()
        if not name.startswith(others)
    }
    return {name: value for name, value in vision.items() if not name.startswith(unused)}


def from_nanochat(tensors: Mapping[str, Tensor]) -> Tensors:
    """nanochat's names -> those of `NanoChatForCausalLM`; the latter are kept as they are."""
    return {
        _rename(name.removeprefix(_COMPILED), _GPT, to_original=False): value
        for name, value in tensors.items()
    }


def _fuse(tensors: Tensors) -> Tensors:
    """q_proj, k_proj, v_proj -> qkv_proj, concatenated in this order."""
    fused: Tensors = {}
    for name, value in tensors.items():
        match = _QKV.fullmatch(name)
        if not match:
            fused[name] = value
        elif match.group(2) == "q":
            stem, kind = match.group(1), match.group(3)
            three = [tensors[f"{stem}{which}_proj.{kind}"] for which in "qkv"]
            fused[f"{stem}qkv_proj.{kind}"] = torch.cat(three)
    return fused


def _split(name: str, value: Tensor) -> Tensors:
    """qkv_proj -> q_proj, k_proj, v_proj; any other tensor unchanged."""
    match = _FUSED.fullmatch(name)
    if not match or value.dim() == 0 or len(value) % 3:
        return {name: value}
    stem, kind = match.groups()
    three = zip("qkv", value.chunk(3), strict=True)
    return {f"{stem}{which}_proj.{kind}": piece for which, piece in three}


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Copy `tensors` into the parameters of `module`, one tensor for each parameter.

    Raises WeightsError, before anything is copied, that names the first three tensors that are
    missing, unknown or of wrong shape; `what` names the checkpoint in the message.
    """
    parameters = dict(module.named_parameters())
    missing = [name for name in parameters if name not in tensors]
    unknown = [name for name in tensors if name not in parameters]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the model's {list(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    for wrong, problem in (
        (missing, "missing"),
        (unknown, "unknown"),
        (shapes, "of wrong shape"),
    ):
        if wrong:
            raise WeightsError(
                f"{what}: {len(wrong)} tensors {problem}: {_abbreviate(wrong)}\n"
                "  The checkpoint is of another model, or the model config has other sizes"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _abbreviate(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, ..."
