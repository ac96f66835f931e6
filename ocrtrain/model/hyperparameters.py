"""Sizes and other properties of the model that weights were made for, compared with the model's.

They are known from three places: a record beside the weights (config.json of `transformers` or of
DeepSeek-OCR, nanochat's meta_*.json, the config in files of our own), the shapes of the tensors,
and where neither tells, what the released models of that width have. Shapes alone do not tell the
number of attention heads, the base of the rotary embedding, the soft cap or the activation: with
another one, tensors load without an error into a model that computes something else.

What differs is refused by name and value. What nothing tells is reported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ocrdata.errors import WeightsError
from ocrtrain.model.head import SOFTCAP
from ocrtrain.model.tensor_names import CLIP, DEEPSEEK, NANOCHAT, NANOCHAT_HF, OURS, SAM, Layout
from ocrtrain.model.weight_file import Shape
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.image_slots import PATCH
from ocrtrain.settings.model_config import PARTS, ModelConfig

Record = Mapping[str, Any]

OF_PART = {
    "sam": re.compile("sam_.*"),
    "clip": re.compile("clip_.*"),
    "projector": re.compile("gpt_width|clip_width|sam_out"),
    "gpt": re.compile("gpt_.*|vocab_size|rope_theta"),
}
"""The fields of `ModelConfig` that each part depends on."""

HEADS = {("sam", 768): 12, ("clip", 1024): 16}
"""Heads of the released encoders by their width: SAM ViT-B and CLIP ViT-L."""

ORIGINAL_GPT_HEADS = 16
"""The original project builds its GPT with 16 heads, although nanochat d20 has 10, and writes no
config beside its step_*.pt."""

NEWER = ("value_embed", "ve_gate", "resid_lambda", "x0_lambda", "smear", "backout")
"""In names of nanochat's parameters since 2026: value embeddings, residual scales, smearing,
backout."""


class Rule(NamedTuple):
    """A property of a part: the keys it is recorded under, the value here, and the field that sets
    it ("": none does).

    `absent` is what a record without the key means (the default of its software); None: it must be
    there if `needed`, else nothing is known.
    """

    keys: tuple[str, ...]
    value: Any
    field: str = ""
    absent: Any = None
    needed: bool = False


def _rules(part: str, model: ModelConfig, layout: Layout) -> list[Rule]:
    """What is compared of a part."""
    width, layers = ("n_embd", "hidden_size", "width"), ("n_layer", "num_hidden_layers", "layers")
    heads = ("n_head", "num_attention_heads", "heads")
    if part == "gpt":
        return [
            Rule(heads, model.gpt_heads, "gpt_heads", needed=True),
            Rule(("n_kv_head", "num_key_value_heads"), model.gpt_heads, "gpt_heads", needed=True),
            Rule(layers, model.gpt_layers, "gpt_layers", needed=True),
            Rule(width, model.gpt_width, "gpt_width", needed=True),
            Rule(("intermediate_size",), model.gpt_mlp, "gpt_mlp"),
            Rule(("head_dim",), model.gpt_width // model.gpt_heads),
            # nanochat of 2025 has the base in its code, `transformers` in the config.
            Rule(("rope_theta", "rope_base"), model.rope_theta, "rope_theta", absent=10000.0),
            Rule(("rope_type",), "default"),
            Rule(("final_logit_softcapping", "logit_softcap", "softcap"), SOFTCAP),
            Rule(("hidden_act",), "relu2"),
            Rule(("rms_norm_eps",), 1e-6),
            Rule(("attention_bias",), False),
        ]
    if part == "clip":
        return [
            # The defaults of the config classes in `transformers`.
            Rule(heads, model.clip_heads, "clip_heads", absent=12 if layout is CLIP else 16),
            Rule(layers, model.clip_layers, "clip_layers"),
            Rule(width, model.clip_width, "clip_width"),
            Rule(("intermediate_size",), model.clip_mlp, "clip_mlp"),
            Rule(("hidden_act",), "quick_gelu"),
            Rule(("layer_norm_eps",), 1e-5),
        ]
    if part == "sam":
        return [
            Rule(heads, model.sam_heads, "sam_heads", absent=12),
            Rule(layers, model.sam_layers, "sam_layers"),
            Rule(width, model.sam_width, "sam_width"),
            Rule(("mlp_dim",), model.sam_mlp, "sam_mlp"),
            Rule(("window_size",), model.sam_window, "sam_window"),
            Rule(("global_attn_indexes",), list(model.sam_global_layers), "sam_global_layers"),
            Rule(("output_channels",), model.sam_neck, "sam_neck"),
            Rule(("patch_size",), PATCH),
            Rule(("hidden_act",), "gelu"),
            Rule(("layer_norm_eps",), 1e-6),
            Rule(("use_rel_pos",), True),
            Rule(("use_abs_pos",), True),
            Rule(("qkv_bias",), True),
        ]
    return [
        Rule(("projector_type",), "linear"),
        Rule(("input_dim",), model.clip_width + model.sam_out, "sam_out"),
        Rule(("n_embed",), model.gpt_width, "gpt_width"),
    ]


def check_fit(
    layout: Layout, record: Record, shapes: Mapping[str, Shape], model: ModelConfig, *,
    parts: Collection[str], what: str,
) -> list[str]:  # fmt: skip
    """Check that weights with this record and these shapes (by our names) belong to `model`, as far
    as `parts` go. Returns the fields that neither tells and no release settles.

    Raises WeightsError that names the first fields that differ, with both values.
    """
    unknown: list[str] = []
    faults = list(_newer(record, shapes)) if "gpt" in parts else []
    if layout is OURS or "gpt_width" in record:
        faults += _differing_fields(record, model, parts)
    else:
        by_part = _by_part(layout, record)
        for part in parts:
            found = by_part.get(part)
            if found:
                faults += _differing(found, _rules(part, model, layout), part, layout)
            else:
                faults += _unrecorded(layout, part, model, unknown)
    faults = faults or list(_differing_sizes(shapes, model, parts))
    if faults:
        preset = f": made with --preset {record['preset']}" if record.get("preset") else ""
        more = f" (and {len(faults) - 3} more{preset})" if len(faults) > 3 else ""
        raise WeightsError(f"{what}: {'; '.join(faults[:3])}{more}")
    return unknown


def _by_part(layout: Layout, record: Record) -> dict[str, Record]:
    """The records of each part in a config of other software; {} where there is none."""
    if not record:
        return {}
    if layout is SAM or layout is CLIP:
        part = "sam" if layout is SAM else "clip"
        return {part: _object(record.get("vision_config", record))}
    if layout is DEEPSEEK:
        vision = _object(record.get("vision_config"))
        widths = _object(vision.get("width"))
        clip = next((value for name, value in widths.items() if name.startswith("clip")), None)
        gpt = _object(record.get("model_config", record))
        return {
            "sam": _object(widths.get("sam_vit_b") or vision.get("sam_config")),
            "clip": _object(clip or vision.get("encoder_config")),
            "projector": _object(record.get("projector_config")),
            "gpt": gpt if "n_head" in gpt else {},
        }
    gpt = _object(record.get("model_config", record))
    return {"gpt": {**gpt, **_object(gpt.get("rope_parameters"))}}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _newer(record: Record, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Whether weights are of a nanochat with another architecture."""
    signs = [name for name in shapes if any(word in name for word in NEWER)]
    signs += ["window_pattern"] * ("window_pattern" in _object(record.get("model_config", record)))
    if signs:
        yield (
            f"made by a newer nanochat with another architecture ({signs[0]}); use a checkpoint "
            "from before 2026, such as nanochat-students/base-d20"
        )


def _differing(found: Record, rules: list[Rule], part: str, layout: Layout) -> Iterator[str]:
    for rule in rules:
        key = next((key for key in rule.keys if found.get(key) is not None), None)
        if key is None and rule.needed and layout in (NANOCHAT, NANOCHAT_HF):
            yield (
                f"{rule.keys[0]} is missing from its config and cannot be inferred from the tensors"
            )
            return
        value = rule.absent if key is None else found[key]
        if value is not None and value != rule.value:
            yield _fault(key or rule.keys[0], value, rule, part)
    if found.get("rope_scaling") is not None:
        yield f"rope_scaling is {found['rope_scaling']}, which this model does not have"


def _fault(key: str, value: Any, rule: Rule, part: str) -> str:
    if rule.field:
        return f"{key} is {_shown(value)}, but the model has {rule.field} " + _remedy(
            rule.field, rule.value, value
        )
    return (
        f"{key} is {value}, but the {part.upper()} of this project has {rule.value} and no flag "
        "for it"
    )


def _remedy(field: str, value: Any, wanted: Any) -> str:
    return f"{_shown(value)}; set {flag_name(field)} {_shown(wanted)}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _differing_fields(record: Record, model: ModelConfig, parts: Collection[str]) -> Iterator[str]:
    """The fields that differ from those in a config of our own."""
    known = {item.name for item in dataclasses.fields(ModelConfig)}
    for name, value in record.items():
        if not any(OF_PART[part].fullmatch(name) for part in parts):
            continue
        if name not in known:
            yield f"{name} is {_shown(value)}, a property that this release does not know"
        elif name == "vocab_size":
            continue  # depends on the tokenizer (`ocrtrain.model.pretrained`)
        elif (_as_list(value)) != _as_list(getattr(model, name)):
            ours = getattr(model, name)
            yield f"{name} is {_shown(value)}, but the model has {name} " + _remedy(
                name, ours, value
            )


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _unrecorded(layout: Layout, part: str, model: ModelConfig, unknown: list[str]) -> Iterator[str]:
    """What is wrong with the heads of a part that no record tells; `unknown` gets its field if
    they are not known at all."""
    if part == "projector":
        return
    field = f"{part}_heads"
    width, ours = getattr(model, f"{part}_width"), getattr(model, field)
    heads = HEADS.get((part, width))
    if part == "gpt":
        if layout is not DEEPSEEK:
            yield (
                "n_head is not recorded and cannot be inferred from the tensors; put its "
                "meta_*.json or config.json beside the file"
            )
            return
        heads = ORIGINAL_GPT_HEADS if width == ModelConfig().gpt_width else None
    if heads is None:
        unknown.append(field)
    elif heads != ours:
        yield (
            f"{field} is {heads} (not recorded in the file, but what released models of width "
            f"{width} have), but the model has {field} {ours}; set {flag_name(field)} {heads}, or "
            "record another number in a config.json beside the file"
        )


def sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The fields of a `ModelConfig` that shapes tell, by our names of the tensors."""
    found: dict[str, Any] = {}

    def take(name: str, *fields: tuple[str, int]) -> None:
        shape = shapes.get(name, ())
        found.update({field: shape[axis] for field, axis in fields if axis < len(shape)})

    take("encoder.sam.pos_embed", ("sam_grid", 1), ("sam_width", 3))
    take("encoder.sam.layers.0.mlp.lin1.weight", ("sam_mlp", 0))
    take("encoder.sam.neck.conv1.weight", ("sam_neck", 0))
    take("encoder.sam.proj.conv1.weight", ("sam_mid", 0))
    take("encoder.sam.proj.conv2.weight", ("sam_out", 0))
    take("encoder.clip.embeddings.position_embedding.weight", ("clip_width", 1))
    take("encoder.clip.encoder.layers.0.mlp.fc1.weight", ("clip_mlp", 0))
    take("encoder.projector.weight", ("gpt_width", 0))
    take("gpt.model.embed_tokens.weight", ("gpt_width", 1))
    take("gpt.model.layers.0.mlp.fc1.weight", ("gpt_mlp", 0))
    positions = shapes.get("encoder.clip.embeddings.position_embedding.weight", (0,))[0]
    if positions > 1:
        found["clip_grid"] = round((positions - 1) ** 0.5)
    for part, stem in (("sam", "encoder.sam."), ("clip", "encoder.clip.encoder."),
                       ("gpt", "gpt.model.")):  # fmt: skip
        layer = re.compile(re.escape(stem) + r"layers\.(\d+)\.")
        numbers = [int(match.group(1)) for match in map(layer.match, shapes) if match]
        if numbers:
            found[f"{part}_layers"] = max(numbers) + 1
    return found | _windows(shapes, found.get("sam_grid"))


def _windows(shapes: Mapping[str, Shape], grid: int | None) -> dict[str, Any]:
    """SAM's window and global layers: relative positions reach over 2 * side - 1 patches."""
    name = re.compile(r"encoder\.sam\.layers\.(\d+)\.attn\.rel_pos_h")
    sides = {
        int(match.group(1)): (shape[0] + 1) // 2
        for match, shape in ((name.fullmatch(key), shape) for key, shape in shapes.items())
        if match and shape
    }
    others = {side for side in sides.values() if side != grid}
    if grid is None or len(others) != 1:
        return {}
    everywhere = sorted(layer for layer, side in sides.items() if side == grid)
    return {"sam_window": others.pop(), "sam_global_layers": tuple(everywhere)}


def _differing_sizes(
    shapes: Mapping[str, Shape], model: ModelConfig, parts: Collection[str]
) -> Iterator[str]:
    for field, value in sizes(shapes).items():
        ours = getattr(model, field)
        if any(OF_PART[part].fullmatch(field) for part in parts) and value != ours:
            yield f"{field} is {_shown(value)}, but the model has {field} " + _remedy(
                field, ours, value
            )


assert set(OF_PART) == set(PARTS)
