"""What the scripts in `tools/` run on plans and runs: planning, showing a batch, the demo. Each
module has a `main(arguments)` and runs with `python -m` too. Nothing imports this room.
"""
