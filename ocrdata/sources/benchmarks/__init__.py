"""Benchmarks in the layouts in which their authors publish them, one file each: a record of such a
layout becomes a question of a sample, with what its measure needs (`ocrtrain.evaluation.benchmarks`
scores the answers). `questions.py` says how to add one.
"""
