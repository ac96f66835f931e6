"""Rows to a complete, resumable shard set. In: a source and options. Out: shards, the rejected
rows, and the manifest, written last; the same bytes whatever was killed on the way. Read
`convert.py` first, then `work_folder.py`, which remembers what is done.
"""
