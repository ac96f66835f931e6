"""From a config to the batch of any step. In: a config. Out: opened shards, the plan of the run,
and for any step the tensors and the identity of its batch. Read `stream.py` first:
`Stream.batch(step)` is `batch = f(plan, step)`.
"""
