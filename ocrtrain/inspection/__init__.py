"""Rebuilds any batch of any run and shows it. In: a run folder and a step. Out: the batch, a
verdict on whether it is the one trained on, and a report as terminal text, a picture and an HTML
page. Read `rebuild.py` first. This room may import all others; only commands import it.
"""
