"""What every command needs at run time. In: a command's `main` and its arguments. Out: exit
statuses and one-line errors (`cli.py`, read first), worker processes that never outlive their
parent, progress bars, and human-readable sizes and times.
"""
