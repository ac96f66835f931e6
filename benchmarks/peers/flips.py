"""Silent corruption: how many flipped bits a loader serves without an error.

One bit is flipped in each of 200 images, in the files that the loader wrote. First all at once:
most loaders read to the end, and the samples that differ are counted. A loader that stops with an
error reads again with one flipped bit at a time; every error then counts as a bit that was caught.
"""

from __future__ import annotations

import logging
import random
import warnings
from pathlib import Path

from benchmarks.peers.peer import Pair, Peer, Source

NEEDLE = 24
"""Length in bytes of the part of an image that is searched for in the files."""


def count(peer: Peer, folder: Path, source: Source) -> dict[str, int]:
    """{"silent": served changed, "lost": left out without an error, "caught": an error}."""
    right = [source.pair(key) for key in range(source.count)]
    if sorted(read(peer, folder) or []) != sorted(right):
        raise SystemExit(f"{folder}: undamaged samples are not read back as they were written")
    places = [find(folder, image) for _, image in right]
    bits = random.Random(0)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    flips = [(path, at + bits.randrange(NEEDLE), 1 << bits.randrange(8)) for path, at in places]
    for flip in flips:
        turn(*flip)
    got = read(peer, folder)
    if got is not None:
        return judge(got, right)
    for flip in flips:
        turn(*flip)
    total = {"silent": 0, "lost": 0, "caught": 0}
    for flip in flips:
        turn(*flip)
        got = read(peer, folder)
        turn(*flip)
        if got is None:
            total["caught"] += 1
        else:
            found = judge(got, right)
            total["silent"] += found["silent"]
            total["lost"] += found["lost"]
    return total


def find(folder: Path, image: bytes) -> tuple[Path, int]:
    """Find some bytes of an image in the files: (file, offset). Tries one part after the other from
    the middle of the image on, since a format may split it. Raises SystemExit if none is found."""
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for start in range(len(image) // 2, len(image) - NEEDLE, NEEDLE):
        needle = image[start : start + NEEDLE]
        for path, data in files.items():
            if (at := data.find(needle)) >= 0:
                return path, at
    raise SystemExit(f"{folder}: no file contains the original bytes of an image")


def turn(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def read(peer: Peer, folder: Path) -> list[Pair] | None:
    """All samples, or None if an error was raised."""
    try:
        return [(bytes(text), bytes(image)) for text, image in peer.samples(folder)]
    except Exception:  # any error means that the loader noticed
        return None


def judge(got: list[Pair], right: list[Pair]) -> dict[str, int]:
    known = set(right)
    changed = sum(pair not in known for pair in got)
    return {"silent": changed, "lost": len(right) - len(got), "caught": 0}
