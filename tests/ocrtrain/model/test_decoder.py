"""The decoder has the sizes of its config and no token of its own meaning."""

from __future__ import annotations

import pytest

from ocrtrain.model.decoder import build_decoder, cache_argument
from tests.support.encoders import SMALL


def test_sizes_and_attention_are_those_of_the_config() -> None:
    found = build_decoder(SMALL)
    assert len(found.model.layers) == SMALL.gpt_layers
    assert found.lm_head.weight.shape == (SMALL.vocab_size, SMALL.gpt_width)
    assert found.lm_head.weight is not found.model.embed_tokens.weight
    assert found.config.pad_token_id is None and found.model.embed_tokens.padding_idx is None
    assert found.config._attn_implementation == "ocr_samples"


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_has_either_name(name: str) -> None:
    found = build_decoder(SMALL)
    assert cache_argument(found) in ("cache", "past_key_values")
    names: dict[str, object] = {}
    exec(f"def forward({name}=None): ...", names)  # a decoder of another release
    found.model.forward = names["forward"]
    assert cache_argument(found) == name
