"""What a file is whose name says something else, by its first bytes: a gzip file named .tar, a
git-lfs pointer, a server's page instead of a download. For errors that say so, with a remedy.
"""

from __future__ import annotations

import re
import shlex

from ocrdata.errors import OcrError
from ocrdata.storage.file import exists, open_file
from ocrdata.storage.location import Location, LocationLike

HEAD_BYTES = 512
"""Bytes at the start of a file that are looked at."""

_TEXT = rb"(?:\xef\xbb\xbf)?\s*"

TAR, ZSTD, PARQUET = "a tar", "a zstd file", "a Parquet file"

_KINDS = [
    (re.compile(start, re.DOTALL | re.IGNORECASE), what, remedy)
    for start, what, remedy in (
        (rb"\x1f\x8b", "a gzip file", "run mv {file} {file}.gz && gunzip {file}.gz"),
        (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", ZSTD, "run mv {file} {file}.zst"),
        (rb"\xfd7zXZ\0", "an xz file", "run mv {file} {file}.xz && unxz {file}.xz"),
        (rb"BZh[1-9]1AY&SY", "a bzip2 file", "run mv {file} {file}.bz2 && bunzip2 {file}.bz2"),
        (rb"\x04\x22\x4d\x18", "an lz4 file", "run mv {file} {file}.lz4 && unlz4 {file}.lz4"),
        (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "a zip file", "unzip it and pack its files as tar"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z file", "unpack it and pack its files as tar"),
        (rb"Rar!\x1a\x07", "a rar file", "unpack it and pack its files as tar"),
        (rb"version https://git-lfs\.", "a git-lfs pointer", "run git -C {folder} lfs pull"),
        (_TEXT + rb"<(?:!doctype html|html|head|body)\b", "an HTML page", "download it again"),
        (_TEXT + rb"<(?:\?xml|Error)\b", "an XML document", "download it again"),
        (_TEXT + rb"[\[{]\s*[\"\[{}\]]", "JSON", "download it again, or name it .json"),
        (rb"PAR1", PARQUET, "name it .parquet"),
        (rb".{257}ustar", TAR, "name it .tar"),
    )
]
"""(first bytes, what it is, remedy). From RFC 1952 and RFC 8878 and the specifications of xz,
bzip2, LZ4 frames, zip, 7z, RAR 5.0, git-lfs, Parquet and POSIX.1-1988."""


def recognise(location: LocationLike, expected: str) -> str:
    """What a file is and what to do, such as 'a gzip file; mv x.tar x.tar.gz && ...'.

    "" if it is of the kind `expected`, of no known kind, or cannot be read. The commands work when
    typed.
    """
    place = Location.of(location)
    try:
        if not exists(place):
            return ""
        file = open_file(place)
        head = file.read(0, min(file.size, HEAD_BYTES))
    except OcrError:
        return ""
    found = next((kind for kind in _KINDS if kind[0].match(head)), None)
    if found is None or found[1] == expected:
        return ""
    quoted = {"file": shlex.quote(str(place)), "folder": shlex.quote(str(place.folder))}
    return f"{found[1]}; {found[2].format(**quoted)}"
