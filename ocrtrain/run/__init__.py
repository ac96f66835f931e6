"""One training run from start to end. In: a config. Out: a trained model in a run folder, its log,
and the identity of every batch. Read `loop.py` first: it has the train step; `launch.py` prepares
the run, `resume.py` decides what a resumed one may change.
"""
