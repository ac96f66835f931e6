"""The settings of a run. In: a command line. Out: a frozen, checked `Config`. Read `config.py`
first: each of its fields is a flag; `presets.py` has the two stages, which differ in values only.
"""
