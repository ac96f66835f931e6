"""From steps to samples. In: the sizes of the sources, the lengths of their samples, settings. Out:
which samples are in the batch of any step, and the totals of a training run. No sample is read,
except to count its tokens. Read `plan.py` first; it combines order, packing, rows and mixture.
`fetch_ahead.py` asks for what the next steps read from URLs.
"""
