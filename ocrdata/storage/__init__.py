"""Bytes at a place. In: a path or a URL, and what to write there. Out: exact bytes by position, or
an error that names the place; files that are complete or absent; JSON documents that carry their
own digest; locks; the cache folder; answers of the hub. It knows nothing of tars or samples. Read
`location.py` first, then `files.py` for a disk, `remote.py` for a URL: one request. `fetching.py`
asks for many ahead, `block_cache.py` keeps what came, `upload.py` sends.
"""
