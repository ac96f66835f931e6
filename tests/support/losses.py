"""Losses of a batch: the model itself takes its tensors."""

from ocrtrain.data.batch import Batch
from ocrtrain.model.inputs import ModelInputs
from ocrtrain.model.ocr_model import LossSum, OcrModel, TokenLosses


def inputs_of(model: OcrModel, batch: Batch) -> ModelInputs:
    """What the model takes of a batch."""
    return model.prepare(
        batch.input_ids, batch.position_ids, batch.targets, batch.images, batch.layouts
    )


def loss_of(model: OcrModel, batch: Batch) -> LossSum:
    """`OcrModel.forward` on a batch."""
    found: LossSum = model(inputs_of(model, batch))
    return found


def token_losses(model: OcrModel, batch: Batch) -> TokenLosses:
    """`OcrModel.token_losses` on a batch."""
    return model.token_losses(inputs_of(model, batch))
