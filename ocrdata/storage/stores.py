"""The obstore client for a URL: one for all objects of a host or bucket, so that they share its
connections. Imported on first use; installed by the extra `remote`.

Credentials come from where the clients look: for S3 the `AWS_*` variables (`AWS_ENDPOINT_URL` for
other S3 servers, `AWS_SKIP_SIGNATURE=true` for public buckets), else boto3's profiles if boto3 is
installed; for the hub `HF_TOKEN` or its login. TLS trusts the system's certificates, and those in
the file `SSL_CERT_FILE` names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ocrdata.errors import SpecError, UsageError
from ocrdata.storage.hub_urls import SignedUrl, signed_url
from ocrdata.storage.location import Location

ATTEMPT_S = 15.0
"""Seconds after which one request is given up; what it brought so far is kept."""

CONNECT_S = 5.0

SLOWEST_BYTES_S = 150_000
"""Bytes a second below which sending a file is given up; a part of one needs less than a minute."""

SEND_S = 60.0
"""Seconds at least for one request that sends something."""

PART_TRIES = 3
"""Times more that a part of a file is sent before the whole file is sent again."""

STORES = 256
"""Clients kept. A signed URL needs one of its own: 9 ms of CPU and 0.2 MB."""

SCHEMES = ("https", "http", "s3", "hf")

_PLAIN = re.compile(r"[A-Za-z0-9._~/-]*")
"""Paths that obstore sends as they are written."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_REGION = re.compile(r"[A-Za-z0-9_-]+")


_used_by: set[int] = set()
"""The process that has used the client; after a fork, the process it was forked from."""


def client() -> Any:
    """The module `obstore`. Raises UsageError if it is not installed, or in a process that was
    forked after its use: there it would never answer."""
    try:
        import obstore
    except ImportError as exc:
        raise UsageError(
            "reading and writing at a URL needs obstore; run pip install 'ocr-shards[remote]'"
        ) from exc
    _used_by.add(os.getpid())
    if len(_used_by) > 1:
        raise UsageError(
            "URLs cannot be read in a process that was forked from one that has read some; start "
            "processes by spawn, as with multiprocessing_context='spawn' of a DataLoader"
        )
    return obstore


def check_scheme(location: Location) -> None:
    """Raise SpecError for a URL of a kind that cannot be read."""
    if location.scheme not in SCHEMES:
        raise SpecError(
            f"{location}: {location.scheme}:// cannot be read; use a path, https://, s3:// or hf://"
        )
    parts = urlsplit(location.text)
    if location.scheme == "s3":
        path = unquote(parts.path.strip("/"))
        if not _BUCKET.fullmatch(parts.netloc) or (path and not _is_regular(path)):
            raise SpecError(
                f"{location}: write s3://BUCKET/KEY, without empty parts in KEY; credentials are "
                "in AWS_* variables or a profile"
            )
    elif location.scheme != "hf" and not _has_host(location.text):
        raise SpecError(f"{location}: not a valid URL; check its host and port")


def store_of(location: Location) -> tuple[Any, str]:
    """The obstore store for an `http`, `https` or `s3` URL, and the object's path in it. Raises
    UsageError."""
    check_scheme(location)
    parts = urlsplit(location.text)
    path = parts.path.lstrip("/")
    if location.scheme == "s3":
        return _bucket(parts.netloc, _endpoint()), unquote(path)
    if parts.query or not (_PLAIN.fullmatch(path) and _is_regular(path)):
        return _site(location.text), ""
    return _site(f"{location.scheme}://{parts.netloc}"), path


def writer_of(location: Location, size: int) -> tuple[Any, str]:
    """Like `store_of`, to send a file of `size` bytes. Raises UsageError."""
    check_scheme(location)
    if location.scheme == "hf":
        raise UsageError(f"{location}: files of the hub are written by commits")
    parts = urlsplit(location.text)
    if location.scheme == "s3":
        store = _bucket(parts.netloc, _endpoint(), SEND_S, PART_TRIES)
        return store, unquote(parts.path.lstrip("/"))
    seconds = SEND_S
    while seconds * SLOWEST_BYTES_S < size:  # doubled: few stores for files of many sizes
        seconds *= 2
    path = parts.path.lstrip("/")
    if parts.query or not (_PLAIN.fullmatch(path) and _is_regular(path)):
        return _site(location.text, (), seconds), ""
    return _site(f"{location.scheme}://{parts.netloc}", (), seconds), path


def bucket_queries(bucket: str, key: str, query: str) -> tuple[Any, str]:
    """A store and a path in it whose signed URLs are those of an object, or of the bucket if `key`
    is "", with a query of S3's. The client appends a path to the store's URL, here to the value of
    a parameter: S3 ignores those that begin with `x-`."""
    server = _endpoint() or f"https://s3.{_region()}.amazonaws.com"
    url = f"{server}/{quote(f'{bucket}/{key}' if key else bucket)}?{query}&x-object="
    place = {"endpoint": url, "virtual_hosted_style_request": True}
    return _s3(bucket, place, ATTEMPT_S, _NO_RETRIES), "-"


@lru_cache(STORES)
def _site(url: str, headers: tuple[tuple[str, str], ...] = (), seconds: float = ATTEMPT_S) -> Any:
    from obstore.store import HTTPStore

    options = _options(allow_http=url.startswith("http:"), seconds=seconds)
    if headers:
        options["default_headers"] = dict(headers)
    try:
        return HTTPStore.from_url(url, client_options=options, retry_config=_NO_RETRIES)
    except ValueError:  # its text may hold a secret
        raise UsageError(
            f"{Location(url)}: not a URL to read from; check its host, and the certificates in "
            "SSL_CERT_FILE if that is set"
        ) from None


@lru_cache(STORES)
def _bucket(name: str, endpoint: str, seconds: float = ATTEMPT_S, tries: int = 0) -> Any:
    """The store of a bucket: `seconds` for a request, and `tries` more of the client's own."""
    retries = {**_NO_RETRIES, "max_retries": tries, "retry_timeout": timedelta(seconds=seconds)}
    return _s3(name, {"endpoint": endpoint} if endpoint else {}, seconds, retries)


def _s3(name: str, place: dict[str, Any], seconds: float, retries: Any) -> Any:
    from obstore.store import S3Store

    _check_variables()
    return S3Store(
        name,
        region=_region(),
        client_options=_options(allow_http=_endpoint().startswith("http:"), seconds=seconds),
        retry_config=retries,
        credential_provider=_profile(),
        **place,
    )


def _endpoint() -> str:
    """The URL of the S3 server; "" is Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or "us-east-1"


def _check_variables() -> None:
    """Raise UsageError for variables on which the client would panic. Says no values: they may hold
    secrets."""
    server = _endpoint()
    if server and not (server.startswith(("http://", "https://")) and _has_host(server)):
        raise UsageError("AWS_ENDPOINT_URL: must be the http:// or https:// URL of an S3 server")
    if not _REGION.fullmatch(_region()):
        raise UsageError("AWS_REGION: must be the name of a region, such as us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"{name}: has characters that no key has, such as a line end")


def _has_host(url: str) -> bool:
    """Whether an HTTP URL names a host, and a port that can be, or none."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and " " not in parts.netloc and parts.port != 0
    except ValueError:
        return False


def _is_regular(path: str) -> bool:
    """Whether all parts of a path are names; the client refuses others."""
    return not {"", ".", ".."} & set(path.split("/"))


def _profile() -> Any:
    """boto3's credentials, where a profile is set up and the environment has none; or None."""
    if "AWS_ACCESS_KEY_ID" in os.environ or "AWS_SKIP_SIGNATURE" in os.environ:
        return None
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    file = Path(named) if named else Path.home() / ".aws" / "credentials"
    if not ("AWS_PROFILE" in os.environ or file.exists()):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    return Boto3CredentialProvider()


_NO_RETRIES: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=ATTEMPT_S)}
"""obstore's own retries ignore Retry-After."""


def _options(*, allow_http: bool, seconds: float) -> Any:
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "allow_http": allow_http,
    }
    trusted = os.environ.get("SSL_CERT_FILE")
    if trusted:
        try:
            options["root_certificate"] = Path(trusted).read_bytes()
        except OSError as exc:
            raise UsageError(f"SSL_CERT_FILE {trusted}: cannot be read: {exc.strerror}") from exc
    return options


@dataclass(frozen=True)
class Target:
    """Where the bytes of a location are: the client's store, the path in it, and for a file of the
    hub the signed URL that the store is for."""

    store: Any
    path: str
    host: str
    signed: SignedUrl | None = None

    @staticmethod
    def of(location: Location, refused: SignedUrl | None = None) -> Target:
        """The target of a location now. Raises UsageError, SourceError, TransportError."""
        client()
        if location.scheme != "hf":
            store, path = store_of(location)
            return Target(store, path, urlsplit(location.text).netloc)
        signed = signed_url(location, refused=refused)
        store = _site(signed.url, tuple(signed.headers.items()))
        return Target(store, "", urlsplit(signed.url).netloc, signed)
