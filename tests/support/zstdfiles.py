"""Hand-made zstd files."""

from __future__ import annotations

from pathlib import Path

import zstandard


def bomb(path: Path, *, declares_size: bool) -> None:
    """Write 1 GiB of zeros as about 32 KiB; the frame header has the content size or not."""
    writer = zstandard.ZstdCompressor()
    whole = writer.compressobj(size=1 << 30) if declares_size else writer.compressobj()
    block = bytes(1 << 24)
    path.write_bytes(b"".join(whole.compress(block) for _ in range(64)) + whole.flush())
