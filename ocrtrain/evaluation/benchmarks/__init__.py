"""Published benchmarks, one file each: the measure with where it is defined, its version, and what
is made equal before texts are compared. `base.py` says what a benchmark is and how to add one,
`registry.py` lists them, `table.py` makes means, confidence intervals and the table of the answers.
"""
