"""Tensor names of other projects: round trips, exact spelling, nothing left over."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ocrdata.errors import WeightsError
from ocrtrain.model.tensor_names import (
    assign,
    from_clip,
    from_deepencoder,
    from_nanochat,
    from_sam,
    to_deepencoder,
)
from tests.support.pretrained import (
    CONFIG,
    clip_checkpoint,
    model,
    random_model,
    sam_checkpoint,
    to_nanochat,
)

Tensors = dict[str, Tensor]

# Names read from the original files, with any layer number; WB is a weight and a bias.
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


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def own(module: torch.nn.Module) -> Tensors:
    return {name: value.detach() for name, value in module.named_parameters()}


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_round_trip(prefix: str) -> None:
    source = random_model(seed=5)
    encoder = {prefix + n: v for n, v in to_deepencoder(source.encoder).items()}
    assert same(from_deepencoder(encoder), own(source.encoder))
    gpt = {prefix + n: v for n, v in to_nanochat(source.gpt).items()}
    assert same(from_nanochat(gpt), own(source.gpt))
    assert same(from_nanochat(own(source.gpt)), own(source.gpt))  # transformers' names are kept


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
    one = torch.zeros(1)
    h, block = f"transformer.h.{layer}", f"model.layers.{layer}"
    assert set(from_nanochat({f"{h}.attn.c_proj.weight": one, f"{h}.mlp.c_proj.weight": one})) == {
        f"{block}.self_attn.o_proj.weight", f"{block}.mlp.fc2.weight",
    }  # fmt: skip
    assert set(
        from_deepencoder(
            {
                f"sam_model.blocks.{layer}.norm2.bias": one,
                f"sam_model.blocks.{layer}.attn.rel_pos_h": one,
                f"vision_model.transformer.layers.{layer}.mlp.fc1.bias": one,
            }
        )
    ) == {
        f"sam.layers.{layer}.layer_norm2.bias", f"sam.layers.{layer}.attn.rel_pos_h",
        f"clip.encoder.layers.{layer}.mlp.fc1.bias",
    }  # fmt: skip


def test_unused_parts_are_left_out() -> None:
    source = random_model(seed=5)
    sam = {n: v for n, v in own(source.encoder.sam).items() if not n.startswith("proj.")}
    assert same(from_sam(sam_checkpoint(source)), sam)
    assert same(from_clip(clip_checkpoint(source)), own(source.encoder.clip))
    encoder = to_deepencoder(source.encoder) | {
        "vision_model.embeddings.patch_embedding.weight": torch.ones(2, 3, 14, 14),
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    assert same(from_deepencoder(encoder), own(source.encoder))


@pytest.mark.parametrize("name", ["sam_model.new.weight", "vision_model.new", "text", "gpt.x"])
def test_unknown_tensors_are_kept_and_so_refused(name: str) -> None:
    source = random_model(seed=5)
    tensors = from_deepencoder(to_deepencoder(source.encoder) | {name: torch.ones(2)})
    with pytest.raises(WeightsError, match=r"^x: 1 .*unknown: \S+\n  \S"):
        assign(source.encoder, tensors, what="x")


@pytest.mark.parametrize("value", [torch.ones(()), torch.ones(4), torch.ones(0)])
def test_a_fused_tensor_that_cannot_be_split_is_refused(value: Tensor) -> None:
    name = "vision_model.transformer.layers.0.self_attn.qkv_proj.bias"
    source = random_model(seed=5)
    tensors = from_deepencoder(to_deepencoder(source.encoder) | {name: value})
    with pytest.raises(WeightsError, match=r"^x: 3 .*(missing|shape)"):
        assign(source.encoder, tensors, what="x")


def test_assign_copies_tensors_of_any_dtype() -> None:
    source, target = random_model(seed=5), model(seed=1)
    before = {name: value.data_ptr() for name, value in target.named_parameters()}
    assign(target, {n: v.double() for n, v in own(source).items()}, what="x")
    assert same(own(target), own(source))
    assert {name: value.data_ptr() for name, value in target.named_parameters()} == before
    assert all(p.requires_grad and p.dtype == torch.float32 for p in target.parameters())


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("problem", ["missing", "unknown", "of wrong shape"])
def test_assign_names_the_first_few_and_copies_nothing(problem: str, count: int) -> None:
    target = model(seed=1)
    before = {n: v.clone() for n, v in own(target).items()}
    tensors = {n: v + 1 for n, v in before.items()}
    names = sorted(tensors)[:count]
    if problem == "missing":
        names = [name for name in tensors if name in names]
        tensors = {n: v for n, v in tensors.items() if n not in names}
    elif problem == "unknown":
        names = [f"new.{number}" for number in range(count)]
        tensors |= dict.fromkeys(names, torch.ones(1))
    else:
        names = [name for name in tensors if name in names]
        tensors |= {name: torch.ones(7, 7, 7) for name in names}
    with pytest.raises(WeightsError) as caught:
        assign(target, tensors, what="a.safetensors")
    first, remedy = str(caught.value).split("\n")
    assert first.startswith(f"a.safetensors: {count} tensors {problem}: {names[0]}")
    assert [name in first for name in names] == [True] * min(count, 3) + [False] * (count - 3)
    assert first.endswith(", ...") == (count > 3)
    assert remedy.startswith("  ") and "\n" not in remedy
    if problem == "of wrong shape":
        wanted = re.escape(str(list(before[names[0]].shape)))
        assert re.search(rf"{re.escape(names[0])} .*\[7, 7, 7\].*{wanted}", first)
    assert same(own(target), before)


def test_the_parts_have_different_sizes() -> None:
    """With equal sizes, the tests above would not detect two parts that are swapped."""
    assert CONFIG.sam_width != CONFIG.clip_width != CONFIG.gpt_width
