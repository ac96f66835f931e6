"""From steps to samples: which samples are in the batch of any step, and the totals of a training
run, computed from the sizes of the sources, the lengths of their samples and settings. No sample is
read, except to count its tokens. Start with `plan.py`; it combines order, packing, rows and
mixture.
"""
