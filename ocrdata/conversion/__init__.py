"""Converts a source to a complete shard set, resumably. In: a source and options. Out: shards, the
rejected rows, and the manifest, written last; the bytes are the same however often the conversion
was killed. Read `convert.py` first, then `work_folder.py`, which remembers the finished shards, and
`comparison.py`, which decides whether they may be kept when the input was edited.
"""
