"""A trained model as a folder of Hugging Face's libraries. In: a run or a checkpoint. Out: a folder
that `AutoModel`, `AutoTokenizer` and `AutoProcessor` load, with the code that they need.

Read `folder.py` first. `configuration.py`, `modeling.py` and `processing.py` are that code: they
are copied into the folder, with the modules they import (`bundle.py`), so that it stands alone.
They are a room of their own, because every import of theirs is in each exported folder.
"""
