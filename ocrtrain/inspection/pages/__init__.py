"""HTML pages that need nothing else: no network, no script, no other file. `batch.py` fills the
template of a batch; every text is escaped by the template engine.
"""
