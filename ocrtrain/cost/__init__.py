"""What a run takes, before it is paid for. In: a config and a plan. Out: FLOPs, memory, hours on
GPUs, and whether this machine can do it. Nothing is built or loaded. Read `forecast.py` first.
"""
