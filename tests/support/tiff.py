"""TIFF files of any sample layout, written tag by tag (TIFF 6.0), to be read by a decoder under
test. Written without Pillow, so that a test does not ask the decoder what is right."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773

_SHORT, _LONG, _LONG8 = 3, 4, 16
_CODES = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


@dataclass(frozen=True)
class Layout:
    """How samples are stored. `photometric` None leaves the tag out; `tile` is a side in px, else
    there is a strip for every two rows."""

    bits: int = 8
    photometric: int | None = 1
    order: str = "<"
    sample_format: int | None = None
    planar: int = 1
    extra: tuple[int, ...] = ()
    compression: int = NONE
    predictor: int = 1
    fill_order: int = 1
    tile: int | None = None
    big: bool = False
    palette: Sequence[int] | None = None
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = ()


def tiff(samples: np.ndarray, layout: Layout) -> bytes:
    """A TIFF of `samples` [H, W, S]: unsigned, signed or floating-point numbers of `layout.bits`
    bits."""
    height, width, count = samples.shape
    planes = [samples] if layout.planar == 1 else [samples[:, :, n : n + 1] for n in range(count)]
    blocks = [_compressed(block, layout) for plane in planes for block in _blocks(plane, layout)]
    tags: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (_LONG, (width,)),
        257: (_LONG, (height,)),
        258: (_SHORT, (layout.bits,) * count),
        259: (_SHORT, (layout.compression,)),
        277: (_SHORT, (count,)),
        284: (_SHORT, (layout.planar,)),
    }
    if layout.photometric is not None:
        tags[262] = (_SHORT, (layout.photometric,))
    if layout.fill_order != 1:
        tags[266] = (_SHORT, (layout.fill_order,))
    if layout.predictor != 1:
        tags[317] = (_SHORT, (layout.predictor,))
    if layout.palette is not None:
        tags[320] = (_SHORT, tuple(layout.palette))
    if layout.extra:
        tags[338] = (_SHORT, layout.extra)
    if layout.sample_format is not None:
        tags[339] = (_SHORT, (layout.sample_format,) * count)
    if layout.tile is not None:
        tags |= {322: (_LONG, (layout.tile,)), 323: (_LONG, (layout.tile,))}
    else:
        tags[278] = (_LONG, (ROWS,))
    tags |= {tag: (kind, values) for tag, kind, values in layout.more}
    where, sizes = (324, 325) if layout.tile is not None else (273, 279)
    tags[sizes] = (_LONG, tuple(len(block) for block in blocks))
    head = 16 if layout.big else 8
    offsets, at = [], head
    for block in blocks:
        offsets.append(at)
        at += len(block) + len(block) % 2
    tags[where] = (_LONG8 if layout.big else _LONG, tuple(offsets))
    body = b"".join(block + bytes(len(block) % 2) for block in blocks)
    return _header(at, layout) + body + _directory(at, tags, layout)


ROWS = 2
"""Rows of a strip."""


def _header(directory: int, layout: Layout) -> bytes:
    mark = b"II" if layout.order == "<" else b"MM"
    if layout.big:
        return mark + struct.pack(layout.order + "HHHQ", 43, 8, 0, directory)
    return mark + struct.pack(layout.order + "HI", 42, directory)


def _directory(at: int, tags: dict[int, tuple[int, tuple[int, ...]]], layout: Layout) -> bytes:
    count, entry, field = ("Q", "HHQ", 8) if layout.big else ("H", "HHI", 4)
    order = layout.order
    size = struct.calcsize(order + count) + len(tags) * (struct.calcsize(order + entry) + field)
    after = at + size + field
    entries = values = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}{_CODES[kind]}", *numbers)
        entries += struct.pack(order + entry, tag, kind, len(numbers))
        if len(packed) <= field:
            entries += packed.ljust(field, b"\0")
        else:
            entries += struct.pack(order + ("Q" if layout.big else "I"), after + len(values))
            values += packed + bytes(len(packed) % 2)
    return struct.pack(order + count, len(tags)) + entries + bytes(field) + values


def _blocks(plane: np.ndarray, layout: Layout) -> list[np.ndarray]:
    height, width, _ = plane.shape
    if layout.tile is None:
        return [plane[top : top + ROWS] for top in range(0, height, ROWS)]
    side = layout.tile
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side]
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def _compressed(block: np.ndarray, layout: Layout) -> bytes:
    if layout.predictor == 2:  # horizontal differences, modulo the sample's range
        block = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
        block &= (1 << layout.bits) - 1
    raw = b"".join(_packed(row.reshape(-1), layout) for row in block)
    if layout.fill_order == 2:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="big")
        raw = np.packbits(bits, bitorder="little").tobytes()
    if layout.compression == LZW:
        return _lzw(raw)
    if layout.compression == DEFLATE:
        return zlib.compress(raw)
    if layout.compression == PACKBITS:  # literal runs only
        pieces = [raw[at : at + 128] for at in range(0, len(raw), 128)]
        return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return raw


def _packed(row: np.ndarray, layout: Layout) -> bytes:
    """One row of samples: whole numbers of bytes in the file's order, others bit by bit."""
    if layout.sample_format == 3:
        return row.astype(f"{layout.order}f{layout.bits // 8}").tobytes()
    mask = (1 << layout.bits) - 1
    values = [int(value) & mask for value in row]
    if layout.bits % 8 == 0:
        order = "little" if layout.order == "<" else "big"
        return b"".join(value.to_bytes(layout.bits // 8, order) for value in values)
    text = "".join(f"{value:0{layout.bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _lzw(raw: bytes) -> bytes:
    """LZW with a clear code before every 200 bytes, so that all codes have nine bits."""
    codes: list[int] = []
    for at in range(0, len(raw), 200):
        codes += [256, *raw[at : at + 200]]
    text = "".join(f"{code:09b}" for code in [*codes, 257])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
