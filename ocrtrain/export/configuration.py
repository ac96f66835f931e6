"""The config of an exported model: the sizes of the model, and what its processor must do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ocrtrain.settings.model_config import ModelConfig

SIZES = tuple(field.name for field in dataclasses.fields(ModelConfig))


class OcrConfig(PreTrainedConfig):
    """The fields of `ModelConfig`, the sides in px of the images it was trained with, the id of the
    image token, and what the processor must be (`OcrProcessor.description`). Raises UsageError for
    sizes that do not fit together."""

    model_type = "ocr_shards"
    attribute_map = {  # noqa: RUF012 - as in `transformers`
        "num_hidden_layers": "gpt_layers",
        "hidden_size": "gpt_width",
        "num_attention_heads": "gpt_heads",
        "num_key_value_heads": "gpt_heads",
    }

    def __init__(
        self,
        image_sizes: Sequence[int] = (1024,),
        image_token: int = 65536,
        processor: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        given = {name: kwargs.pop(name) for name in SIZES if name in kwargs}
        if "sam_global_layers" in given:
            given["sam_global_layers"] = tuple(given["sam_global_layers"])
        for name, value in dataclasses.asdict(ModelConfig(**given)).items():
            setattr(self, name, list(value) if isinstance(value, tuple) else value)
        self.image_sizes, self.image_token = list(image_sizes), image_token
        self.processor = processor or {}
        super().__init__(**{"tie_word_embeddings": False, **kwargs})

    @property
    def sizes(self) -> ModelConfig:
        """The sizes of the model."""
        values = {name: getattr(self, name) for name in SIZES}
        return ModelConfig(**{**values, "sam_global_layers": tuple(values["sam_global_layers"])})
