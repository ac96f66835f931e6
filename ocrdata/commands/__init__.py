"""What the scripts in `tools/` run that need no torch: making shards, checking them, training a
tokenizer. Each module has a `main(arguments)` and runs with `python -m` too. Nothing imports this
room.
"""
