"""Exported models for Hugging Face's Auto classes, without `trust_remote_code`.

import ocrtrain.hf
ocrtrain.hf.register()
model = AutoModelForImageTextToText.from_pretrained("exported")
"""

from __future__ import annotations


def register() -> None:
    """Make exported models known to `AutoConfig`, `AutoModel`, `AutoModelForImageTextToText`,
    `AutoImageProcessor` and `AutoProcessor`. Idempotent."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    from ocrtrain.export.configuration import OcrConfig
    from ocrtrain.export.modeling import OcrForConditionalGeneration
    from ocrtrain.export.processing import OcrImageProcessor, OcrProcessor

    AutoConfig.register(OcrConfig.model_type, OcrConfig, exist_ok=True)
    for auto in (AutoModel, AutoModelForImageTextToText):
        auto.register(OcrConfig, OcrForConditionalGeneration, exist_ok=True)
    AutoImageProcessor.register(
        OcrConfig, slow_image_processor_class=OcrImageProcessor, exist_ok=True
    )
    AutoProcessor.register(OcrConfig, OcrProcessor, exist_ok=True)
