"""This project's loader beside six others; see `python -m benchmarks.peers --help`."""
