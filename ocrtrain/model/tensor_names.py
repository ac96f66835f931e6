"""Names of tensors in other projects' files, converted to and from those of an `OcrModel`.

`LAYOUTS` is the table of what is read, a layout for each naming scheme: which of its names are
ours, and which are known and not used, with the reason. A layout is recognised by names that no
other has (`read_names`). Our own encoder files have DeepSeek-OCR's names (`to_deepencoder`),
because they do not change when `transformers` renames its modules.

Names alone are handled here; `ocrtrain.model.pretrained` compares shapes and copies values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ocrdata.errors import WeightsError

Tensors = dict[str, Tensor]

_SAM = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
    ("net_2.", "proj.conv1."),
    ("net_3.", "proj.conv2."),
    ("blocks.{i}.norm1.", "layers.{i}.layer_norm1."),
    ("blocks.{i}.norm2.", "layers.{i}.layer_norm2."),
    ("blocks.{i}.", "layers.{i}."),
    ("", ""),
)
_ENCODER = (
    *((f"sam_model.{theirs}", f"encoder.sam.{ours}") for theirs, ours in _SAM),
    ("vision_model.transformer.layers.{i}.", "encoder.clip.encoder.layers.{i}."),
    ("vision_model.", "encoder.clip."),
    ("projector.layers.", "encoder.projector."),
    ("image_newline", "encoder.image_newline"),
    ("view_separator", "encoder.view_separator"),
)
_NANOCHAT = (
    ("transformer.wte.", "gpt.model.embed_tokens."),
    ("transformer.h.{i}.attn.c_q.", "gpt.model.layers.{i}.self_attn.q_proj."),
    ("transformer.h.{i}.attn.c_k.", "gpt.model.layers.{i}.self_attn.k_proj."),
    ("transformer.h.{i}.attn.c_v.", "gpt.model.layers.{i}.self_attn.v_proj."),
    ("transformer.h.{i}.attn.c_proj.", "gpt.model.layers.{i}.self_attn.o_proj."),
    ("transformer.h.{i}.mlp.c_fc.", "gpt.model.layers.{i}.mlp.fc1."),
    ("transformer.h.{i}.mlp.c_proj.", "gpt.model.layers.{i}.mlp.fc2."),
    ("lm_head.", "gpt.lm_head."),
)
_PATCHES = "CLIP's own patch embedding, in whose place SAM's feature map comes"
_MIXTURE = "its decoder, a mixture of experts: another architecture than the GPT here"


class Layout(NamedTuple):
    """A naming scheme.

    `mark` is a regular expression of names that only this layout has. `rules` are pairs of their
    and our beginning of a name, the first that fits counts, {i} is a number. `unused` are pairs of
    a regular expression and the reason why such a tensor is not taken. `prefix` may precede a name.
    `lacks` are the beginnings of our names that such a file never has.
    """

    name: str
    mark: str
    rules: tuple[tuple[str, str], ...]
    unused: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    lacks: tuple[str, ...] = ()


OURS = Layout(
    name="a model of this project",
    mark=r"encoder\.(sam|clip|projector)\..*|gpt\.(model|lm_head)\..*",
    rules=(("encoder.", "encoder."), ("gpt.", "gpt.")),
)
DEEPSEEK = Layout(  # the release, the original of this project, and our encoder files
    name="DeepSeek-OCR",
    mark=r"(model\.)?(sam_model\..*|vision_model\.transformer\..*|projector\.layers\..*"
    r"|gpt\.transformer\..*|vision_tower\.sam_encoder\..*)",
    prefix="model.",
    rules=(
        *_ENCODER,
        ("view_seperator", "encoder.view_separator"),  # spelled like this in the release
        *((f"gpt.{theirs}", ours) for theirs, ours in _NANOCHAT),
        # In memory, transformers calls them otherwise than in its files.
        ("vision_tower.sam_encoder.", "encoder.sam."),
        ("vision_tower.vision_encoder.", "encoder.clip."),
        ("multi_modal_projector.", "encoder.projector."),
    ),
    unused=(
        (r"(vision_model|vision_tower\.vision_encoder)\.embeddings\.patch_embedding\..*", _PATCHES),
        (r"vision_model\.embeddings\.position_ids", "CLIP's numbering of positions"),
        (r"(language_model\.)?(embed_tokens|layers\.\d+|norm)\..*|lm_head\..*", _MIXTURE),
    ),
)
NANOCHAT = Layout(name="nanochat", mark=r"transformer\.h\.\d+\..*", rules=_NANOCHAT)
NANOCHAT_HF = Layout(
    name="nanochat of transformers",
    mark=r"model\.layers\.\d+\.mlp\.fc1\.weight",
    rules=(("model.", "gpt.model."), ("lm_head.", "gpt.lm_head.")),
)
SAM = Layout(
    name="SAM",
    mark=r"(vision_encoder\.)?layers\.\d+\.attn\.rel_pos_h",
    prefix="vision_encoder.",
    rules=(("", "encoder.sam."),),
    unused=(
        (r"(shared_image_embedding|prompt_encoder|mask_decoder)\..*", "SAM's prompts and masks"),
    ),
    lacks=("encoder.sam.proj.",),
)
CLIP = Layout(
    name="CLIP",
    mark=r"(vision_model\.)?encoder\.layers\.\d+\.self_attn\.q_proj\.weight",
    prefix="vision_model.",
    rules=(("", "encoder.clip."),),
    unused=(
        (r"(text_model|text_projection|visual_projection)\..*|logit_scale", "CLIP's text tower"),
        (r"post_layernorm\..*", "CLIP's last norm, which DeepSeek-OCR leaves out"),
        (r"embeddings\.patch_embedding\..*", _PATCHES),
        (r"embeddings\.position_ids", "CLIP's numbering of positions"),
    ),
)
LAYOUTS = (DEEPSEEK, OURS, NANOCHAT, NANOCHAT_HF, SAM, CLIP)
"""In the order in which they are tried."""

WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
"""What torch's wrappers (DDP, compile, FSDP, checkpointing) put between the parts of a name."""

_QKV = re.compile(r"(.*\.self_attn\.)([qkv])_proj\.(weight|bias)")
_FUSED = re.compile(r"(.*\.self_attn\.)qkv_proj\.(weight|bias)")


class Piece(NamedTuple):
    """A tensor of a file, or one of the equal thirds of it: query, key and value are one there."""

    name: str
    third: int | None = None


class Names(NamedTuple):
    """The names of a file: its layout, our name -> where it is there, reason -> unused names."""

    layout: Layout
    taken: dict[str, Piece]
    unused: dict[str, list[str]]


def read_names(names: Iterable[str], *, what: str) -> Names:
    """Recognise the layout of a file by the names of its tensors, and convert them.

    A name that no rule knows is kept, and so found to be unknown when it is compared with the
    model. Raises WeightsError, with `what` as the file's name, where no layout fits, or two tensors
    have one name of ours.
    """
    bare = {name: _unwrap(name) for name in names}
    layout = next(
        (x for x in LAYOUTS if any(map(re.compile(x.mark).fullmatch, bare.values()))), None
    )
    if layout is None:
        first = next(iter(bare), "missing: the file has none")
        raise WeightsError(
            f"{what}: not the weights of a known model ({', '.join(x.name for x in LAYOUTS)}); its "
            f"first tensor is {first}"
        )
    found = Names(layout, {}, {})
    for name, unwrapped in bare.items():
        short = unwrapped.removeprefix(layout.prefix)
        reason = next((why for like, why in layout.unused if re.fullmatch(like, short)), None)
        if reason:
            found.unused.setdefault(reason, []).append(name)
            continue
        for ours, piece in _pieces(name, rename(short, layout.rules)):
            if ours in found.taken:
                other = found.taken[ours].name
                raise WeightsError(f"{what}: {other} and {name} are the same tensor of the model")
            found.taken[ours] = piece
    return found


def _unwrap(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _pieces(name: str, ours: str) -> list[tuple[str, Piece]]:
    match = _FUSED.fullmatch(ours)
    if not match:
        return [(ours, Piece(name))]
    stem, kind = match.groups()
    return [(f"{stem}{which}_proj.{kind}", Piece(name, at)) for at, which in enumerate("qkv")]


def rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """`name` with its beginning changed by the first of `rules` that fits; else unchanged."""
    for old, new in rules:
        match = _pattern(old).match(name)
        if match:
            layer = match.group(1) if match.groups() else ""
            return new.replace("{i}", layer) + name[match.end() :]
    return name


@cache
def _pattern(beginning: str) -> re.Pattern[str]:
    return re.compile(re.escape(beginning).replace(r"\{i\}", r"(\d+)"))


def to_deepencoder(encoder: nn.Module) -> Tensors:
    """Parameters of a `DeepEncoder` under DeepSeek-OCR's names."""
    back = tuple((ours, theirs) for theirs, ours in _ENCODER)
    tensors = {
        rename(f"encoder.{name}", back): parameter.detach()
        for name, parameter in encoder.named_parameters()
    }
    return _fuse(tensors)


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
