"""The decoder has the sizes of its config and no token of its own meaning."""

from __future__ import annotations

from ocrtrain.model.decoder import build_decoder
from tests.support.encoders import SMALL


def test_sizes_and_attention_are_those_of_the_config() -> None:
    found = build_decoder(SMALL)
    assert len(found.model.layers) == SMALL.gpt_layers
    assert found.lm_head.weight.shape == (SMALL.vocab_size, SMALL.gpt_width)
    assert found.lm_head.weight is not found.model.embed_tokens.weight
    assert found.config.pad_token_id is None and found.model.embed_tokens.padding_idx is None
    assert found.config._attn_implementation == "ocr_samples"
