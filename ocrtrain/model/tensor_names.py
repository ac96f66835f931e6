"""Names of tensors: how other people's checkpoints call what the model holds.

Owner of the mappings, and of the rule that every tensor is accounted for: a name that is missing
or unknown is an error, never a parameter that silently stays random. It opens no files.

Four layouts are read. *DeepEncoder*, the original's (`sam_model.blocks...`, `vision_model...` with
fused `qkv_proj`, `projector.layers`), is also what is written: it does not change when
`transformers` renames its modules. *SAM* and *CLIP* are those of the hub's checkpoints, *nanochat*
that of its `model_*.pt` before the value embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ocrdata.errors import WeightsError

Tensors = dict[str, Tensor]

# (ours, the original's), first match wins; {i} is a layer number.
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
_COMPILED = "_orig_mod."  # what torch.compile puts before every name


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
    """A `DeepEncoder`'s parameters under the original's names."""
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
    """The original's names -> a `DeepEncoder`'s. What belongs to none keeps its name.

    CLIP's patch embedding and its position numbers are left out: the SAM map takes their place.
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
        elif name == "view_seperator":  # so spelled in DeepSeek's release
            ours["view_separator"] = value
        else:
            ours[name] = value
    return ours


def from_sam(tensors: Mapping[str, Tensor]) -> Tensors:
    """`facebook/sam-vit-base` -> names within `DeepEncoder.sam`; its decoders are left out."""
    others = ("shared_image_embedding.", "prompt_encoder.", "mask_decoder.")
    return {
        name.removeprefix("vision_encoder."): value
        for name, value in tensors.items()
        if not name.startswith(others)
    }


def from_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """`openai/clip-vit-large-patch14` -> names within `DeepEncoder.clip`.

    Left out: the text tower, the projections, the norm after the last layer (DeepSeek-OCR has
    none), the patch embedding (the SAM map takes its place) and the position numbers.
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
    """nanochat's names -> those of `NanoChatForCausalLM`, which are accepted as they are too."""
    return {
        _rename(name.removeprefix(_COMPILED), _GPT, to_original=False): value
        for name, value in tensors.items()
    }


def to_nanochat(gpt: nn.Module) -> Tensors:
    """The decoder's parameters under nanochat's names."""
    return {
        _rename(name, _GPT, to_original=True): value.detach()
        for name, value in gpt.named_parameters()
    }


def _fuse(tensors: Tensors) -> Tensors:
    """q_proj, k_proj, v_proj -> qkv_proj, rows in this order."""
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
    """qkv_proj -> q_proj, k_proj, v_proj; any other tensor as it is."""
    match = _FUSED.fullmatch(name)
    if not match or value.dim() == 0 or len(value) % 3:
        return {name: value}
    stem, kind = match.groups()
    three = zip("qkv", value.chunk(3), strict=True)
    return {f"{stem}{which}_proj.{kind}": piece for which, piece in three}


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Copy `tensors` into the parameters of `module`, all of them and nothing else.

    Raises WeightsError, before anything is copied, that names the first few which are missing,
    unknown or of another shape; `what` says whose they are.
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
        (shapes, "of another shape"),
    ):
        if wrong:
            raise WeightsError(
                f"{what}: {len(wrong)} tensors {problem}: {_few(wrong)}\n"
                "  the checkpoint is of another model, or the model config has other sizes"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, ..."
