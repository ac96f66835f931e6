"""The commands that need no torch: they make shards, check them, and train a tokenizer. Each module
has a `main(arguments)`; the scripts in `tools/` call it, and `python -m` runs it too. No other room
imports this one.
"""
