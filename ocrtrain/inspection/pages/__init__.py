"""HTML pages that need no network, no script and no other file. `batch.py` renders the page of a
batch from the template and the stylesheet in `templates/`.
"""
