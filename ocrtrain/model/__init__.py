"""The neural network and its weights. In: tensors (token ids, positions, labels, uint8 images) and
weights from a run, a file or the hub. Out: losses and logits. It depends on no batch, and on no run
but for reading the weights in its checkpoint, for which it imports `state`. Read `ocr_model.py`
first, then `encoder.py`; for weights, `start.py`.
"""
