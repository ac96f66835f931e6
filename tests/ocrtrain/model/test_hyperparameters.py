"""What shapes do not show is compared by name and value: in other people's configs, in our own, and
against what the released models have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, NanoChatConfig, NanoChatForCausalLM, SamVisionConfig

from ocrdata.errors import WeightsError
from ocrtrain.model.hyperparameters import check_fit, sizes
from ocrtrain.model.ocr_model import build_decoder
from ocrtrain.model.pretrained import shapes_of
from ocrtrain.model.tensor_names import (
    CLIP,
    DEEPSEEK,
    NANOCHAT,
    NANOCHAT_HF,
    OURS,
    SAM,
    Layout,
)
from ocrtrain.settings.model_config import PARTS, ModelConfig
from tests.support.pretrained import CONFIG, model

FULL = ModelConfig()


def check(
    layout: Layout, record: dict[str, Any], part: str, config: ModelConfig = FULL
) -> list[str]:
    return check_fit(layout, record, {}, config, parts=(part,), what="x")


SAM_RECORD = {"vision_config": SamVisionConfig().to_dict()}
CLIP_RECORD = {
    "vision_config": CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24,
        patch_size=14,
    ).to_dict()
}  # fmt: skip
GPT_RECORD = NanoChatConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=20, num_attention_heads=10,
    num_key_value_heads=10,
).to_dict()  # fmt: skip
META = {"model_config": {"n_head": 10, "n_kv_head": 10, "n_layer": 20, "n_embd": 1280}}
RELEASE = {
    "vision_config": {
        "width": {
            "clip-l-14-224": {"heads": 16, "layers": 24, "width": 1024},
            "sam_vit_b": {
                "heads": 12,
                "layers": 12,
                "width": 768,
                "global_attn_indexes": [2, 5, 8, 11],
            },
        }
    },
    "projector_config": {"projector_type": "linear", "input_dim": 2048, "n_embed": 1280},
}
RECORDS: list[tuple[Layout, dict[str, Any], tuple[str, ...]]] = [
    (SAM, SAM_RECORD, ("sam",)),
    (CLIP, CLIP_RECORD, ("clip",)),
    (NANOCHAT_HF, GPT_RECORD, ("gpt",)),
    (NANOCHAT, META, ("gpt",)),
    (DEEPSEEK, RELEASE, ("sam", "clip", "projector")),
]


@pytest.mark.parametrize(("layout", "record", "parts"), RECORDS)
def test_the_released_configs_fit_the_full_model(
    layout: Layout, record: dict[str, Any], parts: tuple[str, ...]
) -> None:
    for part in parts:
        assert check(layout, record, part) == []


@pytest.mark.parametrize(
    ("layout", "part", "change", "message"),
    [
        (NANOCHAT_HF, "gpt", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
         "rope_theta is 100000.0, .* rope_theta 10000.0; set --rope-theta 100000.0"),
        (NANOCHAT_HF, "gpt", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
         "rope_type is yarn, .* default"),
        (NANOCHAT_HF, "gpt", {"rope_scaling": {"factor": 2.0}}, "rope_scaling is"),
        (NANOCHAT_HF, "gpt", {"final_logit_softcapping": 20.0},
         r"final_logit_softcapping is 20\.0, .*GPT .* 15\.0"),
        (NANOCHAT_HF, "gpt", {"hidden_act": "silu"}, "hidden_act is silu, .* relu2"),
        (NANOCHAT_HF, "gpt", {"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05, .* 1e-06"),
        (NANOCHAT_HF, "gpt", {"num_attention_heads": 16},
         "num_attention_heads is 16, .* gpt_heads 10; set --gpt-heads 16"),
        (NANOCHAT_HF, "gpt", {"num_key_value_heads": 5}, "num_key_value_heads is 5"),
        (NANOCHAT_HF, "gpt", {"attention_bias": True}, "attention_bias is True"),
        (CLIP, "clip", {"hidden_act": "gelu"}, "hidden_act is gelu, .*CLIP .* quick_gelu"),
        (CLIP, "clip", {"num_attention_heads": 8},
         "num_attention_heads is 8, .* clip_heads 16; set --clip-heads 8"),
        (CLIP, "clip", {"num_attention_heads": None}, "is 12, .* clip_heads 16"),
        (CLIP, "clip", {"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06, .* 1e-05"),
        (SAM, "sam", {"num_attention_heads": 16},
         "num_attention_heads is 16, .* sam_heads 12; set --sam-heads 16"),
        (SAM, "sam", {"hidden_act": "relu"}, "hidden_act is relu, .*SAM .* gelu"),
        (SAM, "sam", {"use_rel_pos": False}, "use_rel_pos is False, .* True"),
        (SAM, "sam", {"window_size": 7}, "window_size is 7, .* 14; set --sam-window 7"),
        (SAM, "sam", {"global_attn_indexes": [7, 15]},
         "is 7 15, .* 2 5 8 11; set --sam-global-layers 7 15"),
    ],
)  # fmt: skip
def test_what_differs_is_refused_by_name_and_both_values(
    layout: Layout, part: str, change: dict[str, Any], message: str
) -> None:
    record = next(record for one, record, _ in RECORDS if one is layout)
    inner = record.get("vision_config", record)
    changed = {**inner, **change}
    with pytest.raises(WeightsError, match=f"^x: .*{message}") as caught:
        check(layout, {"vision_config": changed} if "vision_config" in record else changed, part)
    assert "\n" not in str(caught.value)


def test_the_release_is_compared_part_by_part() -> None:
    heads = {"vision_config": {"width": {"clip-l-14-224": {"heads": 8}, "sam_vit_b": {"heads": 6}}}}
    for part, found in (("clip", 8), ("sam", 6)):
        with pytest.raises(WeightsError, match=rf"heads is {found}, .*--{part}-heads {found}"):
            check(DEEPSEEK, heads, part)
    other = {"projector_config": {"projector_type": "mlp_gelu"}}
    with pytest.raises(WeightsError, match=r"projector_type is mlp_gelu, .* linear"):
        check(DEEPSEEK, other, "projector")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            "sam",
            {"sam_heads": 8},
            "sam_heads is 12 .*not recorded.*sam_heads 8; set --sam-heads 12",
        ),
        ("clip", {"clip_heads": 8}, "clip_heads is 16 .*not recorded.*--clip-heads 16"),
        ("gpt", {}, "gpt_heads is 16 .*not recorded.* gpt_heads 10; set --gpt-heads 16"),
    ],
)
def test_without_a_record_the_heads_are_those_of_the_released_widths(
    part: str, values: dict[str, int], message: str
) -> None:
    """The original project's GPT has 16 heads of 80, as its step_*.pt do not say."""
    with pytest.raises(WeightsError, match=message):
        check(DEEPSEEK, {}, part, replace(FULL, **values))
    fitting = {"sam": FULL, "clip": FULL, "gpt": replace(FULL, gpt_heads=16)}
    assert check(DEEPSEEK, {}, part, fitting[part]) == []
    assert check(DEEPSEEK, {}, part, CONFIG) == [f"{part}_heads"]  # of no released width
    if part == "gpt":  # a config.json beside the file says otherwise
        assert check(DEEPSEEK, {"n_head": 10}, part) == []
        with pytest.raises(WeightsError, match="n_head is not recorded"):
            check(NANOCHAT, {}, part)


def test_our_own_configs_are_compared_in_the_fields_of_the_parts() -> None:
    from dataclasses import asdict

    record = asdict(FULL)
    for part in PARTS:
        assert check(OURS, record, part) == []
    for part, field in (("sam", "sam_heads"), ("clip", "clip_heads"), ("gpt", "rope_theta")):
        other = record | {field: record[field] * 2}
        with pytest.raises(WeightsError, match=f"^x: {field} is {record[field] * 2}, .*set --"):
            check(OURS, other, part)
        for free in {*PARTS} - {part}:
            assert check(OURS, other, free) == []
    with pytest.raises(WeightsError, match=r"sam_wings is 2, .*does not know"):
        check(OURS, record | {"sam_wings": 2}, "sam")


def test_shapes_tell_the_sizes() -> None:
    found = sizes(shapes_of(model()))
    untold = {"sam_heads", "clip_heads", "gpt_heads", "vocab_size", "rope_theta"}
    assert set(found) == {*ModelConfig.__dataclass_fields__} - untold
    assert all(getattr(CONFIG, name) == value for name, value in found.items())


@pytest.mark.parametrize(("theta", "cap", "same"), [(1e4, 15.0, True), (1e5, 15.0, False),
                                                    (1e4, 20.0, False)])  # fmt: skip
def test_a_base_or_cap_that_is_refused_would_change_the_logits(
    theta: float, cap: float, same: bool
) -> None:
    """An oracle for the rules: the same tensors in the decoder of `transformers` with the config
    that is refused give other logits than in ours."""
    ours = build_decoder(CONFIG)
    config = NanoChatConfig(**ours.config.to_dict())
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    config.final_logit_softcapping = cap
    theirs = NanoChatForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
            theirs.get_parameter(name).copy_(value)
        ids = torch.randint(0, CONFIG.vocab_size, (1, 40), generator=generator)
        difference = float((ours.eval()(ids).logits - theirs(ids).logits).abs().max())
    assert (difference < 1e-4) == same
    record = config.to_dict()
    if same:
        assert check(NANOCHAT_HF, record, "gpt", CONFIG) == []
    else:
        with pytest.raises(WeightsError, match=r"rope_theta|final_logit_softcapping"):
            check(NANOCHAT_HF, record, "gpt", CONFIG)
