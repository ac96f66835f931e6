"""Exported models for the Auto classes, registered."""

from __future__ import annotations

from ocrtrain.export.modeling import OcrForConditionalGeneration
from ocrtrain.export.processing import OcrImageProcessor, OcrProcessor
from tests.support.exported import exported, load


def test_auto_classes_give_ours_and_twice_is_no_harm() -> None:
    for _ in range(2):
        for name, kind in (
            ("AutoModel", OcrForConditionalGeneration),
            ("AutoModelForImageTextToText", OcrForConditionalGeneration),
            ("AutoProcessor", OcrProcessor),
            ("AutoImageProcessor", OcrImageProcessor),
        ):
            assert type(load(name, exported())) is kind
