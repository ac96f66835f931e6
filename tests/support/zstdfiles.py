"""Hand-made zstd files."""

from __future__ import annotations

from pathlib import Path

import zstandard


def bomb(path: Path, *, says_its_size: bool) -> None:
    """1 GiB of zeros in about 32 KiB."""
    writer = zstandard.ZstdCompressor()
    whole = writer.compressobj(size=1 << 30) if says_its_size else writer.compressobj()
    block = bytes(1 << 24)
    path.write_bytes(b"".join(whole.compress(block) for _ in range(64)) + whole.flush())
