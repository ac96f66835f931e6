"""Our loader and the field's, side by side; `python -m benchmarks.peers --help`."""
