"""Silent corruption: how many flipped bits of payload a loader hands out as if nothing were wrong.

One bit in each of 200 images, in the files the loader wrote. All at once first: most loaders read
on to the end, and what differs is counted. One that stops with an error is asked again, one bit at
a time: an error or a sample left out loudly is a bit that was caught.
"""

from __future__ import annotations

import logging
import random
import warnings
from pathlib import Path

from benchmarks.peers.peer import Pair, Peer, Source

NEEDLE = 24
"""Bytes by which a place in an image is found again in a file."""


def count(peer: Peer, folder: Path, source: Source) -> dict[str, int]:
    """{"silent": served changed, "lost": left out without an error, "caught": an error}."""
    right = [source.pair(key) for key in range(source.count)]
    if sorted(read(peer, folder) or []) != sorted(right):
        raise SystemExit(f"{folder}: the undamaged samples are not read as they were written")
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
    """Where some bytes of an image lie in the files; from its middle on, as a compressed format
    may have broken up one place or the other. Raises SystemExit where they are nowhere."""
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for start in range(len(image) // 2, len(image) - NEEDLE, NEEDLE):
        needle = image[start : start + NEEDLE]
        for path, data in files.items():
            if (at := data.find(needle)) >= 0:
                return path, at
    raise SystemExit(f"{folder}: the bytes of an image are not in it as they are")


def turn(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def read(peer: Peer, folder: Path) -> list[Pair] | None:
    """Everything, or None where an error was raised."""
    try:
        return [(bytes(text), bytes(image)) for text, image in peer.samples(folder)]
    except Exception:  # whatever a loader raises, it has noticed
        return None


def judge(got: list[Pair], right: list[Pair]) -> dict[str, int]:
    known = set(right)
    changed = sum(pair not in known for pair in got)
    return {"silent": changed, "lost": len(right) - len(got), "caught": 0}
