"""Data sets to samples. In: a data set on the hub, a file, or a seed. Out: numbered rows, each a
`Sample` or the reason why it was rejected. Read `base.py` first: it defines what a source is, and
shows how to add one.
"""
