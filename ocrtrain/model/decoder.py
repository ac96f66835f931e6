"""The decoder: nanochat's GPT from `transformers`, with its sizes from `ModelConfig`."""

from __future__ import annotations

import inspect
from typing import Any

from ocrtrain.model.attention import register
from ocrtrain.model.head import SOFTCAP
from ocrtrain.settings.model_config import ModelConfig

MAX_POSITIONS = 65_536  # required by the decoder's config; default rotary embeddings ignore it


def build_decoder(config: ModelConfig) -> Any:
    """nanochat's GPT from `transformers`, with the sizes in `config`."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    return NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.gpt_width,
            intermediate_size=config.gpt_mlp,
            num_hidden_layers=config.gpt_layers,
            num_attention_heads=config.gpt_heads,
            num_key_value_heads=config.gpt_heads,
            max_position_embeddings=MAX_POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            final_logit_softcapping=SOFTCAP,
            tie_word_embeddings=False,
            use_cache=False,
            # Token 1, the default, is a real token here: as padding, its embedding would be zero
            # and would never get a gradient.
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation=register(),
        )
    )


def cache_argument(decoder: Any) -> str:
    """The name under which the decoder takes its cache: transformers 5 renamed it, and will remove
    the old name in 5.40."""
    arguments = inspect.signature(decoder.model.forward).parameters
    return "cache" if "cache" in arguments else "past_key_values"
