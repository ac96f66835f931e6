"""Where a file is: a path on this machine, or a URL.

Code outside `storage` passes a `Location` on without asking which of the two it is. A URL never
becomes a `Path`, which would turn `https://a` into `https:/a`. `str()` of a URL leaves out user,
password and query, which may contain secrets.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit, urlunsplit

from ocrdata.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

LocationLike = str | os.PathLike[str]
"""What functions that need a `Location` accept; a `Location` itself is an `os.PathLike`."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A path or a URL. `text` is it as written."""

    text: str

    @staticmethod
    def of(location: LocationLike) -> Location:
        """The location of a string or path; a `Location` is returned as it is."""
        return location if isinstance(location, Location) else Location(os.fspath(location))

    @property
    def scheme(self) -> str:
        """'https' for a URL; '' for a path."""
        match = _SCHEME.match(self.text) if "://" in self.text else None
        return match[1].lower() if match else ""

    @property
    def local_text(self) -> str:
        """The path of a local file as text, faster than `path`. Raises UsageError for a URL."""
        if self.scheme:
            raise UsageError(f"{self}: must be a local path, not a URL")
        return self.text

    @property
    def path(self) -> Path:
        """The path of a local file. Raises UsageError for a URL."""
        return Path(self.local_text)

    def __fspath__(self) -> str:
        return self.local_text

    @property
    def name(self) -> str:
        """The last part, such as 'x-000.tar'."""
        if self.scheme:
            return PurePosixPath(self._parts.path).name
        return _split(self.text)[1]

    @property
    def folder(self) -> Location:
        """The folder it is in; that of a URL keeps the query."""
        if not self.scheme:
            return Location(_split(self.text)[0] or ".")
        return self._with_path(str(PurePosixPath(self._parts.path).parent))

    def __truediv__(self, name: str) -> Location:
        """The file `name` in this folder."""
        if not self.scheme:
            return Location(_join(self.text, name))
        return self._with_path(str(PurePosixPath(self._parts.path or "/") / name))

    def sibling(self, name: str) -> Location:
        """The file `name` in the same folder."""
        if not self.scheme:
            return Location(_join(_split(self.text)[0], name))
        return self.folder / name

    def __str__(self) -> str:
        if not self.scheme:
            return self.text
        host = self._parts.netloc.rpartition("@")[2]
        return urlunsplit((self._parts.scheme, host, self._parts.path, "", ""))

    @property
    def has_secret(self) -> bool:
        """Whether it is a URL with a user, a password or a query, which may be a signature."""
        return bool(self.scheme) and self.text != str(self)

    @property
    def _parts(self) -> SplitResult:
        try:
            return urlsplit(self.text)
        except ValueError:  # its text may hold a secret
            raise UsageError(f"{self.scheme}://...: not a valid URL; check its host") from None

    def _with_path(self, path: str) -> Location:
        parts = self._parts
        return Location(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))


def _split(path: str) -> tuple[str, str]:
    """(folder, name) of a path, as `Path` has them; the folder of a bare name is ''."""
    if _is_plain(path):  # a set may have thousands of shards, and `Path` takes ten times as long
        folder, _, name = path.rpartition("/")
        return folder or path[: -len(name)], name
    found = PurePosixPath(path)
    return str(found.parent), found.name


def _join(folder: str, name: str) -> str:
    """`folder / name`, as `Path` writes it."""
    if _is_plain(folder) and _is_plain(name) and name[0] != "/":
        return f"{folder}/{name}"
    return str(PurePosixPath(folder) / name)


def _is_plain(path: str) -> bool:
    """Whether `Path` would leave a path as it is written; False also where that is not obvious."""
    return not ("//" in path or "/." in path or path[:1] in ("", ".") or path[-1] == "/")
