"""What a run is asked to do. In: a command line. Out: a frozen, checked `Config`. Read `config.py`
first: its fields are the flags; `presets.py` has the two stages, which differ in values only.
"""
