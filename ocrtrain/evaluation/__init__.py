"""How good a model is, and whether it looks at the images. In: a model and a slice of shards. Out:
validation losses, image gain, answers and their scores. Read `validation.py` first; a new score is
a function in `scores.py`.
"""
