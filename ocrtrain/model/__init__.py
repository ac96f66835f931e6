"""The network. In: tensors: token ids, positions, labels and uint8 images. Out: losses and logits;
also weights from the hub or a file, under their own names. It knows no batch and no run. Read
`ocr_model.py` first, then `encoder.py`.
"""
