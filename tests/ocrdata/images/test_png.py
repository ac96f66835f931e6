"""The fast PNG decoder: Pillow is the oracle, and decodes every PNG that is not plain."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ocrdata.errors import ImageError
from ocrdata.images import png
from ocrdata.images.decode import ImageInfo, decode_rgb, read_header
from tests.support.pictures import DATA, png_chunk, rotated

needs_decoder = pytest.mark.skipif(
    png.decoder_version() is None, reason="kornia-rs is not installed: Pillow decodes every PNG"
)


def make(
    width: int = 5,
    height: int = 4,
    *,
    header: tuple[int, int, int, int, int] = (8, 2, 0, 0, 0),
    rows: bytes | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of raw filtered rows; `header` is depth, colour, compression, filter, interlace."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[1]]
    if rows is None:
        rows = bytes(height * (1 + width * channels * header[0] // 8))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *header))
        + before
        + png_chunk(b"IDAT", zlib.compress(rows))
        + after
        + png_chunk(b"IEND", b"")
    )


def by_pillow(data: bytes) -> np.ndarray | str:
    """What `decode_rgb` returns without the second decoder: pixels, or its error's message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "_decode", None)
        return decoded(data)


def decoded(data: bytes) -> np.ndarray | str:
    try:
        return decode_rgb(data)
    except ImageError as exc:
        return str(exc)


@st.composite
def filtered(draw: st.DrawFn) -> tuple[bytes, int, int, int]:
    """Any bytes are the filtered rows of some image, if each begins with a filter type."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    colour = draw(st.sampled_from((2, 6)))
    line = width * (3 if colour == 2 else 4)
    seed = draw(st.integers(0, 1 << 30))
    noise = np.random.default_rng(seed).integers(0, 256, (height, line), np.uint8)
    if colour == 6 and draw(st.booleans()):
        noise = np.where(np.arange(line) % 4 == 3, 255, noise).astype(np.uint8)
    types = [draw(st.integers(0, 4)) for _ in range(height)]
    rows = b"".join(bytes([kind]) + row.tobytes() for kind, row in zip(types, noise, strict=True))
    return rows, width, height, colour


@needs_decoder
@given(filtered())
@settings(max_examples=300, deadline=None)
def test_every_row_filter_of_rgb_and_rgba_equals_pillow(found: tuple[bytes, int, int, int]) -> None:
    rows, width, height, colour = found
    data = make(width, height, header=(8, colour, 0, 0, 0), rows=rows)
    pixels = png.decode_plain(data)
    assert pixels is not None and pixels.flags.writeable and pixels.flags.owndata
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels, np.asarray(image))
    result = decode_rgb(data)
    assert result.shape == (height, width, 3) and result.flags.writeable and result.flags.owndata
    assert np.array_equal(result, by_pillow(data))


@needs_decoder
@given(filtered(), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=3), st.integers(0, 60))
@settings(max_examples=500, deadline=None)
def test_damaged_files_give_what_pillow_gives(
    found: tuple[bytes, int, int, int], flips: list[int], cut: int
) -> None:
    rows, width, height, colour = found
    data = bytearray(make(width, height, header=(8, colour, 0, 0, 0), rows=rows))
    for flip in flips:
        data[8 + flip // 8 % (len(data) - 8)] ^= 1 << flip % 8
    damaged = bytes(data[: len(data) - cut])
    if int.from_bytes(damaged[16:20]) * int.from_bytes(damaged[20:24]) > 1_000_000:
        return  # the flip changed its size: megabytes of black
    quick, pillow = decoded(damaged), by_pillow(damaged)
    if isinstance(quick, str) or isinstance(pillow, str):
        assert quick == pillow
    else:
        assert np.array_equal(quick, pillow)


@needs_decoder
def test_real_charts_take_the_fast_decoder_and_equal_pillow() -> None:
    files = sorted((DATA / "charts" / "images").glob("*"))[::5]
    if not files:
        pytest.skip(f"no real charts at {DATA}")
    quick = 0
    for data in (path.read_bytes() for path in files):
        quick += png.decode_plain(data) is not None
        assert np.array_equal(decode_rgb(data), by_pillow(data))
    assert quick > 0.5 * len(files)


@needs_decoder
def test_alpha_is_composited_by_the_same_rule() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (64, 64, 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).save(out, "png")
    assert png.decode_plain(out.getvalue()) is not None
    assert np.array_equal(decode_rgb(out.getvalue()), by_pillow(out.getvalue()))


@needs_decoder
def test_metadata_that_changes_no_pixel_may_precede_the_pixels() -> None:
    text = png_chunk(b"tEXt", b"Title\0a chart") + png_chunk(b"gAMA", struct.pack(">I", 45455))
    rows = bytes(range(4 * 16))
    data = make(
        rows=b"".join(b"\0" + rows[16 * n + 1 : 16 * n + 16] for n in range(4)), before=text
    )
    assert png.decode_plain(data) is not None
    assert np.array_equal(decode_rgb(data), by_pillow(data))


def profile_text(exif: Image.Exif) -> bytes:
    """EXIF as ImageMagick writes it, in hexadecimal."""
    words = exif.tobytes()
    return f"\nexif\n{len(words):8d}\n{words.hex()}\n".encode()


ORIENTED = png_chunk(b"eXIf", rotated(6).tobytes().removeprefix(b"Exif\0\0"))


@needs_decoder
@pytest.mark.parametrize(
    "chunk",
    [ORIENTED, png_chunk(b"tEXt", b"Raw profile type exif\0" + profile_text(rotated(6)))],
)
def test_an_orientation_is_left_to_pillow(chunk: bytes) -> None:
    data = make(before=chunk)
    assert png.decode_plain(data) is not None
    assert decode_rgb(data).shape == (5, 4, 3)
    assert np.array_equal(decode_rgb(data), by_pillow(data))


OTHERS = {
    "16 bits": make(header=(16, 2, 0, 0, 0)),
    "grey": make(header=(8, 0, 0, 0, 0)),
    "grey with alpha": make(header=(8, 4, 0, 0, 0)),
    "a palette": make(header=(8, 3, 0, 0, 0), before=png_chunk(b"PLTE", bytes(6))),
    "interlaced": make(1, 1, header=(8, 2, 0, 0, 1)),
    "a colour that is transparent": make(before=png_chunk(b"tRNS", bytes(6))),
    "an animation": make(before=png_chunk(b"acTL", struct.pack(">II", 1, 0))),
    "an orientation after the pixels": make(after=ORIENTED),
    "an unknown chunk": make(before=png_chunk(b"abCd", b"")),
    "nothing after the pixels": make()[:-12],
    "an end that is cut": make()[:-3],
    "pixels of another row": make()[:-12] + png_chunk(b"tEXt", b"a\0b") + make()[-12:],
    "no PNG": b"GIF89a" + make()[6:],
    "too short": make()[:40],
    "too large a file": make(before=png_chunk(b"tEXt", b"a\0" + bytes(png.PLAIN_BYTES))),
    "too many pixels": make(2001, 1000),
}


@pytest.mark.parametrize("what", OTHERS)
def test_every_other_png_is_left_to_pillow(what: str) -> None:
    data = OTHERS[what]
    assert png.decode_plain(data) is None
    if what != "no PNG":
        quick, pillow = decoded(data), by_pillow(data)
        assert np.array_equal(quick, pillow) if isinstance(quick, np.ndarray) else quick == pillow


def test_without_the_second_decoder_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia_rs", None)  # as if it were not installed
    assert png._load_decoder() is None
    monkeypatch.setattr(png, "_decode", None)
    assert png.decoder_version() is None
    assert png.decode_plain(make()) is None
    assert decode_rgb(make()).shape == (4, 5, 3)


def test_opaque_pixels_lose_their_alpha_and_others_do_not() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 5, 4), np.uint8)
    pixels[..., 3] = 255
    opaque = png.without_alpha(pixels)
    assert opaque is not None and np.array_equal(opaque, pixels[..., :3])
    pixels[3, 2, 3] = 254
    assert png.without_alpha(pixels) is None


XMP = b'<rdf:Description tiff:Orientation="6"/>'
METADATA = {
    "software": png_chunk(b"tEXt", b"Software\0matplotlib"),
    "XMP without an orientation": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<rdf/>"),
    "gamma": png_chunk(b"gAMA", struct.pack(">I", 45455)),
    "background": png_chunk(b"bKGD", bytes(6)),
    "resolution": png_chunk(b"pHYs", struct.pack(">IIB", 3779, 3779, 1)),
    "colour profile": png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(9))),
    "long text": png_chunk(b"tEXt", b"x\0" + bytes(70_000)),
}
ROTATED = {
    "EXIF": ORIENTED,
    "EXIF in a text": png_chunk(b"tEXt", b"exif\0" + rotated(6).tobytes()),
    "EXIF in hexadecimal": png_chunk(
        b"tEXt", b"Raw profile type exif\0" + profile_text(rotated(6))
    ),
    "XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "compressed XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("name", [*METADATA, *ROTATED])
def test_the_size_is_right_with_metadata_before_or_after_the_pixels(name: str, where: str) -> None:
    data = make(**{where: {**METADATA, **ROTATED}[name]})  # type: ignore[arg-type]
    size = (4, 5) if name in ROTATED else (5, 4)
    assert read_header(data) == ImageInfo("png", *size)
    assert decode_rgb(data).shape == (*size[::-1], 3)


@pytest.mark.parametrize("header", [(8, 2, 0, 0, 0), (8, 3, 0, 0, 0), (8, 0, 0, 0, 0)])
def test_a_damaged_header_never_gives_another_size_than_the_pixels(header: tuple[int, ...]) -> None:
    palette = png_chunk(b"PLTE", bytes(range(9)))
    before = palette * (header[1] == 3) + METADATA["software"] + METADATA["gamma"]
    whole = make(header=header, before=before)  # type: ignore[arg-type]
    pixels_at = whole.index(b"IDAT")
    flipped = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        for at in range(pixels_at)
        for bit in range(8)
    ]
    for data in [*flipped, *(whole[:end] for end in range(len(whole)))]:
        try:
            size = read_header(data)
            pixels = decode_rgb(data)
        except ImageError:
            continue
        assert (size.width, size.height) == (5, 4) == pixels.shape[1::-1]


def test_a_png_too_large_to_decode_is_refused_by_its_header() -> None:
    with pytest.raises(ImageError, match=r"50000 x 50000 pixels is larger"):
        read_header(make(50_000, 50_000, rows=b""))
