"""Any batch of any run, rebuilt and shown. In: a run folder and a step. Out: the batch with a
verdict whether it is the one that was trained on, as text, as a picture and as a page. Read
`rebuild.py` first. It may import every room, since it shows what all of them do; nothing imports it
but commands.
"""
