"""URLs of files in data set repositories of the hub: `hf://datasets/ORG/NAME[@REVISION]/PATH`.

The hub answers a request for a file with the URL of another host, which is signed and expires. It
is asked once a file, at a pinned commit; the URL is kept, and renewed before it expires or when it
is refused. The token goes to the hub alone. Signed URLs appear in no message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ocrdata.errors import MissingError, SourceError, SpecError
from ocrdata.storage.hub_client import TIMEOUT_S, explain, repository_info
from ocrdata.storage.location import Location
from ocrdata.storage.recently_used import RecentlyUsed

RENEW_S = 60.0
"""Seconds before its end at which a URL is renewed."""

URLS = 4096
"""URLs kept, about 1 KB each."""

_FORM = re.compile(r"datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubFile(NamedTuple):
    """A file of a data set repository. `revision` is a branch, tag or commit; "" is `main`."""

    repository: str
    revision: str
    path: str

    @property
    def location(self) -> Location:
        """Its `hf://` URL."""
        at = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return Location(f"hf://datasets/{self.repository}{at}/{self.path}")


@dataclass(frozen=True)
class SignedUrl:
    """Where the bytes of a file are now, the headers to send there, and when that ends (Unix time,
    infinite if the URL does not say so)."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    until: float


def hub_file(location: Location) -> HubFile:
    """The file that an `hf://` URL names. Raises SpecError for another form."""
    found = _FORM.fullmatch(location.text.partition("://")[2])
    if found is None:
        raise SpecError(
            f"{location}: write hf://datasets/ORG/NAME/PATH, or hf://datasets/ORG/NAME@REVISION/PATH"
        )
    return HubFile(found[1], unquote(found[2] or ""), found[3])


def pinned(location: Location) -> Location:
    """The same file at the commit that its revision is now. Raises SpecError, SourceError."""
    file = hub_file(location)
    if _COMMIT.fullmatch(file.revision):
        return location
    return file._replace(revision=_commit(file.repository, file.revision)).location


@lru_cache(256)
def _commit(repository: str, revision: str) -> str:
    commit = repository_info(repository, revision or "main", "data set").get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise SourceError(f"{repository}: the hub names no commit of revision {revision or 'main'}")
    return commit


_urls: RecentlyUsed[str, SignedUrl] = RecentlyUsed(URLS)


def signed_url(location: Location, *, refused: SignedUrl | None = None) -> SignedUrl:
    """The URL to read a file from. `refused` is one that was answered with 401, 403 or 404: another
    is asked for, unless somebody else already did. Raises SourceError and TransportError."""
    found = _urls.get(location.text, lambda: _ask(location))
    if found is refused or found.until - time.time() < RENEW_S:
        _urls.drop(location.text, found)
        found = _urls.get(location.text, lambda: _ask(location))
    return found


def forget_all() -> None:
    """Forget all commits and URLs, as after another hub was named."""
    _commit.cache_clear()
    _urls.clear()


def _ask(location: Location) -> SignedUrl:
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    file = hub_file(pinned(location))
    revision, path = quote(file.revision, safe=""), quote(file.path)
    url = f"{constants.ENDPOINT}/datasets/{file.repository}/resolve/{revision}/{path}"
    try:
        with explain(file.repository, file.revision, "data set"):
            target = get_hf_file_metadata(url, timeout=TIMEOUT_S, retry_on_errors=True).location
    except SourceError as exc:
        if not isinstance(exc.__cause__, EntryNotFoundError):
            raise
        raise MissingError(
            str(location),
            "does not exist in the repository at this revision",
            remedy="check the path; files appear when the commit that adds them is complete",
        ) from exc
    if _same_host(target, constants.ENDPOINT):
        token = {k: v for k, v in build_hf_headers().items() if k.lower() == "authorization"}
        return SignedUrl(target, token, float("inf"))
    return SignedUrl(target, {}, _end(target))


def _same_host(url: str, other: str) -> bool:
    return urlsplit(url)[:2] == urlsplit(other)[:2]


def _end(url: str) -> float:
    """When a signed URL ends, in Unix time, by the parameters of S3, CloudFront or Azure."""
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "expires" in query:
            return float(query["expires"])
        if "x-amz-expires" in query:
            signed = datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return signed.timestamp() + float(query["x-amz-expires"])
        if "se" in query:
            return datetime.fromisoformat(query["se"]).timestamp()
    except (KeyError, ValueError):
        pass
    return float("inf")
