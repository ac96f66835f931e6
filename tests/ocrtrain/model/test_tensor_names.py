"""Tensor names of other projects: round trips, exact spelling, nothing left over."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import WeightsError
from ocrtrain.model.tensor_names import WRAPPERS, read_names, to_deepencoder
from tests.support.pretrained import (
    CONFIG,
    Tensors,
    clip_checkpoint,
    model,
    random_model,
    sam_checkpoint,
    to_nanochat,
)

WB = r"\.(weight|bias)"
DEEPENCODER = [
    r"sam_model\.pos_embed",
    rf"sam_model\.patch_embed\.proj{WB}",
    rf"sam_model\.blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.lin1|mlp\.lin2){WB}",
    r"sam_model\.blocks\.\d+\.attn\.rel_pos_[hw]",
    r"sam_model\.neck\.[02]\.weight",
    rf"sam_model\.neck\.[13]{WB}",
    r"sam_model\.net_[23]\.weight",
    r"vision_model\.embeddings\.(class_embedding|position_embedding\.weight)",
    rf"vision_model\.pre_layrnorm{WB}",
    rf"vision_model\.transformer\.layers\.\d+\.layer_norm[12]{WB}",
    rf"vision_model\.transformer\.layers\.\d+\.self_attn\.(qkv_proj|out_proj){WB}",
    rf"vision_model\.transformer\.layers\.\d+\.mlp\.fc[12]{WB}",
    rf"projector\.layers{WB}",
    r"image_newline",
    r"view_separator",
]
NANOCHAT = [
    r"transformer\.wte\.weight",
    r"transformer\.h\.\d+\.attn\.c_(q|k|v|proj)\.weight",
    r"transformer\.h\.\d+\.mlp\.c_(fc|proj)\.weight",
    r"lm_head\.weight",
]


def own(source: torch.nn.Module, prefix: str = "") -> Tensors:
    return {n: v.detach() for n, v in source.named_parameters() if n.startswith(prefix)}


def converted(tensors: Tensors) -> Tensors:
    """Tensors by our names, as `read_names` says."""
    found = read_names(tensors, what="x")
    return {
        ours: tensors[piece.name]
        if piece.third is None
        else tensors[piece.name].chunk(3)[piece.third]
        for ours, piece in found.taken.items()
    }


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def released(source: torch.nn.Module) -> Tensors:
    """DeepSeek-OCR's release: its prefix and spelling, and its decoder beside the encoder."""
    encoder = {
        "model." + name.replace("separator", "seperator"): value
        for name, value in to_deepencoder(source.encoder).items()
    }
    return encoder | {
        "model.vision_model.embeddings.patch_embedding.weight": torch.ones(2, 3, 14, 14),
        "model.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "model.embed_tokens.weight": torch.ones(9, 4),
        "model.layers.0.self_attn.q_proj.weight": torch.ones(4, 4),
        "model.layers.1.mlp.experts.63.gate_proj.weight": torch.ones(4, 4),
        "model.norm.weight": torch.ones(4),
        "lm_head.weight": torch.ones(9, 4),
    }


def wrapped(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "prefix", ["", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_round_trip(prefix: str) -> None:
    source = random_model(seed=5)
    encoder, gpt = own(source, "encoder."), own(source, "gpt.")
    assert same(converted(wrapped(to_deepencoder(source.encoder), prefix)), encoder)
    assert same(converted(wrapped(released(source), prefix)), encoder)
    assert same(converted(wrapped(to_nanochat(source.gpt), prefix)), gpt)
    of_transformers = {n.removeprefix("gpt."): v for n, v in gpt.items()}
    assert same(converted(wrapped(of_transformers, prefix)), gpt)
    assert same(converted(wrapped(own(source), prefix)), own(source))
    whole = to_deepencoder(source.encoder) | wrapped(to_nanochat(source.gpt), "gpt.")
    assert same(converted(wrapped(whole, prefix)), own(source))  # the original's step_*.pt


@given(st.data())
def test_wrappers_may_stand_anywhere_in_a_name(data: st.DataObject) -> None:
    name = "sam_model.blocks.3.attn.qkv.weight"
    parts = name.split(".")
    for wrapper in data.draw(st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=4)):
        parts.insert(data.draw(st.integers(0, len(parts) - 1)), wrapper)
    found = read_names([".".join(parts)], what="x")
    assert list(found.taken) == ["encoder.sam.layers.3.attn.qkv.weight"]


@pytest.mark.parametrize("layout", ["deepencoder", "nanochat"])
def test_names_equal_the_originals(layout: str) -> None:
    source = model()
    names, patterns = {
        "deepencoder": (list(to_deepencoder(source.encoder)), DEEPENCODER),
        "nanochat": (list(to_nanochat(source.gpt)), NANOCHAT),
    }[layout]
    assert [n for n in names if not any(re.fullmatch(p, n) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, n) for n in names)] == []
    assert len(set(names)) == len(names)


def test_fused_tensors_are_query_then_key_then_value() -> None:
    source = random_model(seed=5)
    tensors = to_deepencoder(source.encoder)
    for layer, block in enumerate(source.encoder.clip.encoder.layers):
        attention = block.self_attn
        for kind in ("weight", "bias"):
            three = [getattr(getattr(attention, f"{w}_proj"), kind) for w in "qkv"]
            name = f"vision_model.transformer.layers.{layer}.self_attn.qkv_proj.{kind}"
            assert torch.equal(tensors[name], torch.cat(three))


@given(layer=st.integers(0, 999))
def test_any_layer_number_is_converted(layer: int) -> None:
    pairs = {
        f"transformer.h.{layer}.attn.c_proj.weight":
            f"gpt.model.layers.{layer}.self_attn.o_proj.weight",
        f"transformer.h.{layer}.mlp.c_proj.weight": f"gpt.model.layers.{layer}.mlp.fc2.weight",
        f"sam_model.blocks.{layer}.norm2.bias": f"encoder.sam.layers.{layer}.layer_norm2.bias",
        f"sam_model.blocks.{layer}.attn.rel_pos_h": f"encoder.sam.layers.{layer}.attn.rel_pos_h",
        f"vision_model.transformer.layers.{layer}.mlp.fc1.bias":
            f"encoder.clip.encoder.layers.{layer}.mlp.fc1.bias",
    }  # fmt: skip
    for theirs, ours in pairs.items():
        assert list(read_names([theirs], what="x").taken) == [ours]


def test_every_tensor_of_other_models_is_taken_or_has_its_reason() -> None:
    source = random_model(seed=5)
    for tensors, wanted in (
        (sam_checkpoint(source),
         {n: v for n, v in own(source, "encoder.sam.").items() if ".proj.conv" not in n}),
        (clip_checkpoint(source), own(source, "encoder.clip.")),
        (released(source), own(source, "encoder.")),
    ):  # fmt: skip
        assert same(converted(tensors), wanted)
        found = read_names(tensors, what="x")
        told = {piece.name for piece in found.taken.values()}
        told |= {name for names in found.unused.values() for name in names}
        assert told == set(tensors)
    reasons = read_names(released(source), what="x").unused
    (mixture,) = [names for reason, names in reasons.items() if "mixture of experts" in reason]
    assert len(mixture) == 5


def test_two_names_of_one_tensor_are_refused() -> None:
    names = ["module.sam_model.pos_embed", "sam_model.pos_embed"]
    with pytest.raises(WeightsError, match=rf"x: {names[0]} and {names[1]}"):
        read_names(names, what="x")


@pytest.mark.parametrize(("names", "first"), [(["text", "b"], "text"), ([], "missing")])
def test_names_of_no_known_model_are_refused(names: list[str], first: str) -> None:
    with pytest.raises(WeightsError, match=f"^x: .*DeepSeek-OCR.*{first}"):
        read_names(names, what="x")


def test_the_parts_have_different_sizes() -> None:
    """With equal sizes, the tests above would not detect two parts that are swapped."""
    assert CONFIG.sam_width != CONFIG.clip_width != CONFIG.gpt_width
