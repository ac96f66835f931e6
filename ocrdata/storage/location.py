"""Where a file is: a path on this machine, or a URL.

Everything above `storage` passes a `Location` and never asks which of the two it is. A URL is never
a `Path`, which would turn `https://a` into `https:/a`. Shown to people, a URL has no user, password
or query: they may hold a secret.
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
"""What callers may pass where a `Location` is needed; a `Location` is one of them."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A path or a URL, as it was written in `text`. Made by `Location.of`."""

    text: str

    @staticmethod
    def of(place: LocationLike) -> Location:
        """The location that a string, a path or a location names."""
        return place if isinstance(place, Location) else Location(os.fspath(place))

    @property
    def scheme(self) -> str:
        """'https' of a URL; '' of a path."""
        match = _SCHEME.match(self.text)
        return match[1].lower() if match else ""

    @property
    def path(self) -> Path:
        """The path of a local file. Raises UsageError for a URL."""
        if self.scheme:
            raise UsageError(f"{self}: a local path is needed here, not a URL")
        return Path(self.text)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part: 'x-000.tar'."""
        return PurePosixPath(self._parts.path).name if self.scheme else self.path.name

    @property
    def folder(self) -> Location:
        """What it lies in; of a URL with its query."""
        if not self.scheme:
            return Location(str(self.path.parent))
        return self._with_path(str(PurePosixPath(self._parts.path).parent))

    def __truediv__(self, name: str) -> Location:
        """The file of this name in a folder."""
        if not self.scheme:
            return Location(str(self.path / name))
        return self._with_path(str(PurePosixPath(self._parts.path or "/") / name))

    def sibling(self, name: str) -> Location:
        """The file of this name in the same folder."""
        return self.folder / name

    def __str__(self) -> str:
        if not self.scheme:
            return self.text
        host = self._parts.netloc.rpartition("@")[2]
        return urlunsplit((self._parts.scheme, host, self._parts.path, "", ""))

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.text)

    def _with_path(self, path: str) -> Location:
        parts = self._parts
        return Location(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))
