"""Makes shard sets of shard sets. In: specs of existing ones, and options. Out: new sets, with
their origin in manifest and meta. Read `reshard.py` first: what it chooses is converted like any
other source, so this room knows `sources` too, whose protocols it implements. `copy.py`
copies sets as they are.
"""
