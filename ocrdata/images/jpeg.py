"""Damage inside a JPEG that Pillow conceals: libjpeg fills what it cannot decode with grey and says
so only to whoever listens.

Pillow does not listen; simplejpeg (libjpeg-turbo's own interface) does. Bits changed to other valid
codes cannot be told from a picture by any decoder: of random damage a quarter stays unseen.
"""

from __future__ import annotations

import simplejpeg

from ocrdata.images.decode import sniff

_OF_THE_INTERFACE = "tj"
"""How messages begin that say what TurboJPEG cannot do, not what is wrong with the file."""


def damage(data: bytes) -> str | None:
    """The first complaint of libjpeg-turbo about a JPEG that Pillow decodes, such as 'Corrupt JPEG
    data: premature end of data segment'; None for a sound JPEG and any other format.

    Decoded in grey and at an eighth of the size, which reads every bit of the file in a quarter of
    the time that Pillow takes for its pixels. A subsampling that TurboJPEG does not know (of CMYK,
    for one) is not checked.
    """
    if sniff(data) != "jpg":
        return None
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        target = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, target, min_height=1, min_width=1, strict=True)
    except ValueError as exc:
        return None if str(exc).startswith(_OF_THE_INTERFACE) else str(exc)
    return None
