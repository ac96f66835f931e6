"""Somebody's rows to samples. In: a data set on the hub, a file, or a seed. Out: numbered rows,
each a `Sample` or the reason why it was rejected. Read `base.py` first: it says what a source is; a
new source is one file here and one entry in `registry.py`.
"""
