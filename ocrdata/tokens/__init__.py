"""Conversations to token ids, and how many. In: messages and a tokenizer file. Out: ids with a loss
mask, and token counts in a file beside each shard. Read `rendering.py` first: training and planning
share it, so that a planned length is the trained one.
"""
