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
from urllib.parse import unquote, urlsplit

from ocrdata.errors import SpecError, UsageError
from ocrdata.storage.hub_urls import SignedUrl, signed_url
from ocrdata.storage.location import Location

ATTEMPT_S = 15.0
"""Seconds after which one request is given up; what it brought so far is kept."""

CONNECT_S = 5.0

STORES = 256
"""Clients kept. A signed URL needs one of its own: 9 ms of CPU and 0.2 MB."""

SCHEMES = ("https", "http", "s3", "hf")

_PLAIN = re.compile(r"[A-Za-z0-9._~/-]*")
"""Paths that obstore sends as they are written."""


def client() -> Any:
    """The module `obstore`. Raises UsageError if it is not installed."""
    try:
        import obstore
    except ImportError as exc:
        raise UsageError(
            "reading and writing at a URL needs obstore; run pip install 'ocr-shards[remote]'"
        ) from exc
    return obstore


def check_scheme(location: Location) -> None:
    """Raise SpecError for a URL of a kind that cannot be read."""
    if location.scheme not in SCHEMES:
        raise SpecError(
            f"{location}: {location.scheme}:// cannot be read; use a path, https://, s3:// or hf://"
        )


def store_of(location: Location) -> tuple[Any, str]:
    """The obstore store for an `http`, `https` or `s3` URL, and the object's path in it. Raises
    UsageError."""
    check_scheme(location)
    parts = urlsplit(location.text)
    path = parts.path.lstrip("/")
    if location.scheme == "s3":
        return _bucket(parts.netloc), unquote(path)
    if parts.query or not _PLAIN.fullmatch(path):
        return _site(location.text), ""
    return _site(f"{location.scheme}://{parts.netloc}"), path


@lru_cache(STORES)
def _site(url: str, headers: tuple[tuple[str, str], ...] = ()) -> Any:
    from obstore.store import HTTPStore

    options = _options(allow_http=url.startswith("http:"))
    if headers:
        options["default_headers"] = dict(headers)
    return HTTPStore.from_url(url, client_options=options, retry_config=_NO_RETRIES)


@lru_cache(STORES)
def _bucket(name: str) -> Any:
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    extra: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if "AWS_REGION" not in os.environ and "AWS_DEFAULT_REGION" not in os.environ:
        extra["region"] = "us-east-1"
    return S3Store(
        name,
        client_options=_options(allow_http=endpoint.startswith("http:")),
        retry_config=_NO_RETRIES,
        credential_provider=_profile(),
        **extra,
    )


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


def _options(*, allow_http: bool) -> Any:
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=ATTEMPT_S),
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
