"""The neural network and its weights. In: tensors (token ids, positions, labels, uint8 images) and
weights from the hub or a file. Out: losses and logits. It depends on no batch and no run. Read
`ocr_model.py` first, then `encoder.py`.
"""
