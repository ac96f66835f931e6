"""The bytes of an image that a record names: a file in the image folder, or a `data:` URL.

A name is relative to the folder, or an absolute path or `file://` URL inside it. Nothing outside is
read and nothing is downloaded; symbolic links in the folder are followed, as its owner put them
there. A name that cannot be read rejects its row with the reason.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import xxhash

from ocrdata.errors import RejectedRow, ShardError, SourceError
from ocrdata.storage.files import can_be_a_path, is_file, read_file

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}

_BARE_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
"""How the base64 of a JPEG, PNG, GIF and WebP begins."""
_LONGEST_NAME = 255
"""Bytes of a file name on every common file system."""

_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class ImageFolder:
    """Finds and reads images by the names that records give them."""

    folder: Path

    def read(self, image: str | bytes) -> bytes:
        """The bytes of an image. Raises RejectedRow with the reason, and SourceError if the disk
        fails."""
        if isinstance(image, bytes):
            return image
        if is_data_url(image):
            return _data_url(image)
        file = self.find(image)
        try:
            return read_file(file)
        except ShardError as exc:  # a folder, a pipe
            raise RejectedRow(f"{image[:80]}: not a regular file") from exc
        except OSError as exc:
            if exc.errno in _NO_FILE:
                raise RejectedRow(f"{image[:80]}: no such file") from exc
            raise SourceError(f"{file}: {exc.strerror}") from exc

    def find(self, name: str) -> Path:
        """The file of a name, which may not exist. Raises RejectedRow if it cannot be one in the
        folder.

        `images/a.png` is found whether the folder is `images` or its parent, and a name in one
        Unicode normal form finds the file in another (macOS writes NFD).
        """
        if len(name) > _LONGEST_NAME and name.lstrip().startswith(_BARE_BASE64):
            raise RejectedRow("bare base64; write it as a URL, data:image/png;base64,...")
        relative = self._relative(name)
        inner = Path(*relative.parts[1:]) if relative.parts[:1] == (self._base.name,) else relative
        forms = [relative, inner]
        if not name.isascii():
            for form in ("NFC", "NFD"):
                forms += [
                    Path(unicodedata.normalize(form, str(path))) for path in (relative, inner)
                ]
        return next(
            (file for form in forms if is_file(file := self.folder / form)), self.folder / relative
        )

    @property
    def _base(self) -> Path:
        return self.folder.absolute()

    def _relative(self, name: str) -> Path:
        """A name as a path from the folder."""
        path = name
        if "://" in name:
            url = urlsplit(name.strip())
            if url.scheme != "file" or url.netloc not in ("", "localhost"):
                raise RejectedRow(f"{name[:80]} is a URL; download it into the folder")
            path = unquote(url.path)
        if not can_be_a_path(path):
            raise RejectedRow(f"{name[:80]!r}: no file can have such a name")
        path = os.path.normpath(path)
        if os.path.isabs(path):
            for base, inside in (
                (self._base, Path(path)),
                (self._base.resolve(), Path(os.path.realpath(path))),
            ):
                if inside.is_relative_to(base):
                    return inside.relative_to(base)
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
            raise RejectedRow(f"{name[:80]} is outside the image folder")
        return Path(path)


def digest_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """A digest of names and sizes of files, of which some may be missing: a folder with images of
    the same names is another data set."""
    digest = xxhash.xxh3_128()
    for name, file in files:
        size = file.stat().st_size if is_file(file) else -1
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def is_data_url(name: str) -> bool:
    """Whether a name is a URL that holds the image itself."""
    return name.lstrip()[:5].lower() == "data:"


def _data_url(url: str) -> bytes:
    """The bytes in a base64 `data:` URL: with line breaks, percent-coded, without padding and in
    the URL-safe alphabet, too."""
    head, comma, body = url.partition(",")
    try:
        if not comma or not head.strip().lower().endswith(";base64"):
            raise ValueError("not base64")
        text = "".join(unquote(body).split()).translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise RejectedRow(f"invalid data URL: {exc}") from exc
