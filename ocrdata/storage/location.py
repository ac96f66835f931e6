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
        match = _SCHEME.match(self.text)
        return match[1].lower() if match else ""

    @property
    def path(self) -> Path:
        """The path of a local file. Raises UsageError for a URL."""
        if self.scheme:
            raise UsageError(f"{self}: must be a local path, not a URL")
        return Path(self.text)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part, such as 'x-000.tar'."""
        return PurePosixPath(self._parts.path).name if self.scheme else self.path.name

    @property
    def folder(self) -> Location:
        """The folder it is in; that of a URL keeps the query."""
        if not self.scheme:
            return Location(str(self.path.parent))
        return self._with_path(str(PurePosixPath(self._parts.path).parent))

    def __truediv__(self, name: str) -> Location:
        """The file `name` in this folder."""
        if not self.scheme:
            return Location(str(self.path / name))
        return self._with_path(str(PurePosixPath(self._parts.path or "/") / name))

    def sibling(self, name: str) -> Location:
        """The file `name` in the same folder."""
        return self.folder / name

    def __str__(self) -> str:
        if not self.scheme:
            return self.text
        host = self._parts.netloc.rpartition("@")[2]
        return urlunsplit((self._parts.scheme, host, self._parts.path, "", ""))

    @property
    def _parts(self) -> SplitResult:
        try:
            return urlsplit(self.text)
        except ValueError:  # its text may hold a secret
            raise UsageError(f"{self.scheme}://...: not a valid URL; check its host") from None

    def _with_path(self, path: str) -> Location:
        parts = self._parts
        return Location(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))
