"""What every command shares. In: a command's `main` and its arguments. Out: exit statuses and
one-line errors (`cli.py`, read first), worker processes that never outlive their parent, progress
on a terminal, and sizes and times as people write them.
"""
