"""The format on disk, and its writer. In: samples. Out: `NAME-000.tar` or `.tar.zst`, its index,
and the manifest of a set; also what the members of a tar mean, ours or anybody's. Read `writer.py`
first, with docs/formats.md beside it; reading samples back is `ocrdata.reading`.
"""
