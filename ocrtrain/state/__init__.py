"""What a run leaves behind and continues from. In: a model, its optimizer and the position in the
plan. Out: checkpoints that are complete or absent, and the JSON files of a run folder; read back,
every byte is verified. Read `checkpoint.py` first.
"""
