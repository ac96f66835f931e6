"""How good a model is, and whether it looks at the images. In: a model and a slice of shards. Out:
validation losses, image gain, answers and their scores. Read `validation.py` first; add a new score
to `scores.py`. It imports `storage` of `ocrdata` because answers are kept on disk as they are
given, so that an evaluation can be stopped and gone on with.
"""
