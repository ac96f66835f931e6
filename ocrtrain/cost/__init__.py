"""The cost of a run, estimated before it starts. In: a config and a plan. Out: FLOPs, memory, hours
on GPUs, and whether this machine can do it. No model is built. Read `forecast.py` first.
"""
