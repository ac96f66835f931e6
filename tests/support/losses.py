"""Losses of a batch: the model itself takes its tensors."""

from ocrtrain.data.batch import Batch
from ocrtrain.model.ocr_model import LossSum, OcrModel, TokenLosses


def loss_of(model: OcrModel, batch: Batch) -> LossSum:
    """`OcrModel.forward` on the tensors of a batch."""
    found: LossSum = model(batch.input_ids, batch.position_ids, batch.targets, batch.images)
    return found


def token_losses(model: OcrModel, batch: Batch) -> TokenLosses:
    """`OcrModel.token_losses` on the tensors of a batch."""
    return model.token_losses(batch.input_ids, batch.position_ids, batch.targets, batch.images)
