"""Image bytes to pixels. In: the original bytes of one image. Out: its format and size, uint8 [H,
W, 3] pixels, and where they lie in the square the model sees. Read `decode.py` first: every rule of
decoding is in it; `png.py` is a faster way to the same pixels.
"""
