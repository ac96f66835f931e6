"""Steps to samples. In: the sizes of sources, the lengths of their samples, and settings. Out:
which samples are in the batch of any step, as a function of integers, and the totals of a whole
run. No sample is read. Read `plan.py` first; it puts together order, packing, rows and mixture.
"""
