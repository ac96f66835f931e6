"""Shards of conversations with images: made once, read exactly, sliced, ordered and mixed.

The data side of the toolkit. It never imports `ocrtrain`, and nothing in it needs torch.
"""
