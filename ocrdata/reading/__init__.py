"""From a shard spec to verified, decoded samples. In: a spec such as
`shards/x-<000..017>.tar[:1000]`. Out: a view with random access to any sample, every payload byte
verified; samples with decoded images; batches prefetched by threads. Read `view.py` first;
`spec.py` resolves names to shards, `shard_set.py` holds open files and indexes.
"""
