"""Image bytes to pixels. In: the original bytes of one image. Out: its format and size, its pixels
as uint8 [H, W, 3], and its position in the square the model sees. Read `decode.py` first: it has
every rule of decoding; `png.py` decodes plain PNGs to the same pixels faster.
"""
