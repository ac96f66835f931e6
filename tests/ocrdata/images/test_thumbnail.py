"""An image as a PIL image, and as a thumbnail in a data URL."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb
from ocrdata.images.thumbnail import SIDE, data_url, to_pil
from tests.support.rows import image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_the_pixels_are_those_of_decoding(kind: str) -> None:
    data = image(kind, 30, 20)
    found = to_pil(data)
    assert (found.mode, found.size) == ("RGB", (30, 20))
    assert np.array_equal(np.asarray(found), decode_rgb(data))


def test_what_is_transparent_is_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 1), (9, 9, 9, 0)).save(buffer, "PNG")
    assert to_pil(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1000, 500), (SIDE, SIDE // 2)), ((40, 30), (40, 30)), ((9, 5000), (1, SIDE))],
)
def test_a_thumbnail_is_small_and_keeps_its_shape(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    head, _, body = data_url(image("PNG", *size)).partition(",")
    assert head == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(body)))
    assert small.size == shown
    assert len(body) < 50_000


def test_what_cannot_be_decoded() -> None:
    for call in (to_pil, data_url):
        with pytest.raises(ImageError):
            call(image("PNG")[:40])
