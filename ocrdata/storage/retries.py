"""What to do when a request to a server fails: try again, wait, or give up.

What can pass is tried again, within bounds. A server that says how long to wait (Retry-After) is
left alone for so long, by all threads. After a minute at most there is a TransportError with what,
where and the remedy. What a later try cannot mend is an error at once. No text of the server's, no
URL's query and no header appears in a message.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from http.client import HTTPException
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from ocrdata.errors import MissingError, OcrError, TransportError
from ocrdata.storage.hub_client import parse_retry_after
from ocrdata.storage.hub_urls import SignedUrl
from ocrdata.storage.location import Location
from ocrdata.storage.stores import ATTEMPT_S, Target, client

GIVE_UP_S = 40.0
"""Seconds after which the next failed attempt is the last, and 2 s more for each MB wanted."""

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
"""Between attempts: doubled each time, times a random factor between 0.5 and 1."""

ASK_EVERY_S = 1.0
"""Between two questions to a busy host how long to wait."""

SAY_AFTER_S = 5.0
"""Seconds of failed attempts after which a warning says what is waited for."""

_BUSY = (429, 503)
_STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b|\(([1-5][0-9]{2}) [A-Z]")
_URL = re.compile(r"\b[a-z0-9]+://[^\s\"')]+")

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Attempts:
    """The attempts at one request: what to do about each failure, and when to give up."""

    def __init__(self, location: Location, size: int = 0) -> None:
        self.location = location
        self._began = time.monotonic()
        self._limit = GIVE_UP_S + 2e-6 * size
        self._wait = FIRST_WAIT_S
        self._said = False
        self.refused: SignedUrl | None = None

    def run(self, attempt: Callable[[], Result]) -> Result:
        """The result of the first attempt that succeeds. Raises TransportError."""
        while True:
            try:
                return attempt()
            except OcrError:
                raise
            except Exception as exc:
                if not is_from_client(exc):
                    raise
                self.after(exc)

    def before(self, target: Target) -> None:
        """Wait while the server asks to be left alone."""
        _hosts.wait(target.host, max(0.0, self._began + self._limit - time.monotonic()))

    def after(self, exc: Exception, target: Target | None = None) -> None:
        """Wait before the next attempt; raises the TransportError if there is none."""
        problem = explain(exc)
        signed = target.signed if target is not None else None
        if signed is not None and self.refused is None and problem.code in (401, 403, 404):
            self.refused = signed  # once: a new URL that is refused as well is final
            return
        elapsed = time.monotonic() - self._began
        if problem.final or elapsed > self._limit:
            tried = "" if problem.final else f"; tried for {elapsed:.0f} s"
            kind = MissingError if problem.code == 404 else TransportError
            raise kind(str(self.location), problem.text + tried, remedy=problem.remedy) from None
        if elapsed > SAY_AFTER_S and not self._said:
            self._said = True
            _log.warning(
                "%s: %s since %.0f s; trying again for up to %.0f s",
                self.location, problem.text, elapsed, self._limit - elapsed)  # fmt: skip
        if problem.code in _BUSY:
            host = urlsplit(self.location.text).netloc if target is None else target.host
            busy_until(host, self.location, target)
            left = self._began + self._limit - time.monotonic()
            _hosts.wait(host, max(0.0, left))
        time.sleep(self._wait * random.uniform(0.5, 1))  # jitter: not all threads at once
        self._wait = min(2 * self._wait, LONGEST_WAIT_S)


class Problem(NamedTuple):
    """A failed attempt: its status code (0 without an answer), what to say, whether another attempt
    is of no use, and the remedy."""

    code: int
    text: str
    final: bool
    remedy: str


_LATER = "check the connection and the server; run the same command again: finished work is kept"
_CREDENTIALS = (
    "check the credentials: AWS_* variables or a profile for s3://, HF_TOKEN for hf://, "
    "a URL that has not expired for https://"
)


class ShortBody(Exception):
    """Fewer bytes came than were announced."""


def is_from_client(exc: BaseException) -> bool:
    """Whether an exception is the client's, and no fault of ours."""
    return type(exc).__module__.startswith("obstore") or isinstance(exc, (OSError, ShortBody))


def explain(exc: BaseException) -> Problem:
    """What a failed attempt means."""
    code = _code(exc)
    if code in _FINAL:
        text, remedy = _FINAL[code]
        return Problem(code, text.format(code), True, remedy)
    if not code:
        return Problem(0, _reason(str(exc)), False, _LATER)
    final = code < 500 and code not in (408, 425, 429)
    remedy = "check the URL" if final else _LATER
    return Problem(code, f"the server answers with status {code}", final, remedy)


def _code(exc: BaseException) -> int:
    """The status code of an answer; 0 if there was none."""
    known = _CODES.get(type(exc).__name__)
    match = None if known else _STATUS.search(str(exc).partition("\n")[0])  # URLs may be long
    return known or (int(match[1] or match[2]) if match else 0)


_CODES = {
    "FileNotFoundError": 404,
    "NotFoundError": 404,
    "UnauthenticatedError": 401,
    "PermissionDeniedError": 403,
    "PreconditionError": 412,
}
_DENIED = "access denied (status {})", _CREDENTIALS
_FINAL = {
    401: _DENIED,
    403: _DENIED,
    404: ("does not exist", "check the name, or copy it there"),
    412: (
        "the object was replaced since it was first read",
        "start again when its set is complete; what was read before is not mixed with it",
    ),
    416: ("the object is shorter than its set says", "copy it there again"),
}
"""Status code: what to say, and the remedy."""


_REASONS = (
    ("dns error", "the host name is not found"),
    ("ConnectionRefused|onnection refused", "the server refuses connections"),
    ("error following redirect", "the server redirects without end"),
    ("timed out|TimedOut|kind: Timeout", "the server does not answer in time"),
    ("ertificate|UnknownIssuer", "no secure connection: its certificate is not trusted"),
    ("Requested .* got|Range request not", "the server answers with another range than was asked"),
    ("[Cc]redential|instance metadata", "no credentials were found"),
    ("bytes came of|body error|decoding|IncompleteMessage|Reset|UnexpectedEof|Closed|BrokenPipe",
     "the connection was cut"),
)  # fmt: skip
"""What the client's message has in it, and what to say. Its first line alone often has no cause."""


def _reason(text: str) -> str:
    for pattern, meaning in _REASONS:
        if re.search(pattern, text):
            return meaning
    return "the request failed: " + _URL.sub("its URL", text.partition("\n")[0])[:120]


def refuses_conditions(exc: BaseException) -> bool:
    """Whether a store does not know `If-Match` at all."""
    return bool(re.search(r"\b501 |NotImplemented", str(exc)))


class _Hosts:
    """When each host may be asked again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def hold(self, host: str, seconds: float) -> None:
        """Ask this host nothing for so many seconds."""
        with self._lock:
            self._until[host] = max(self._until.get(host, 0.0), time.monotonic() + seconds)

    def held(self, host: str) -> float:
        """Seconds until a host may be asked."""
        return self._until.get(host, 0.0) - time.monotonic()

    def wait(self, host: str, most: float) -> None:
        """Wait until a host may be asked, `most` seconds at most."""
        seconds = self.held(host)
        if seconds > 0:
            time.sleep(min(seconds * random.uniform(1, 1.2), most))


_hosts = _Hosts()


def busy_until(host: str, location: Location, target: Target | None) -> None:
    """A busy server may say how long to wait, in a header that the client does not show. One thread
    asks for the first byte and holds all requests to the host for so long; it asks again only after
    a while, so that such questions are few among the requests."""
    with _asking:
        since = time.monotonic() - _asked.get(host, -ASK_EVERY_S)
        if _hosts.held(host) > 0 or since < ASK_EVERY_S:
            return
        seconds = _retry_after(location, target)
        _asked[host] = time.monotonic()
        _hosts.hold(host, min(seconds, GIVE_UP_S))


_asking = threading.Lock()
_asked: dict[str, float] = {}
"""When each host was last asked how long to wait."""


def _retry_after(location: Location, target: Target | None) -> float:
    """The seconds of the Retry-After header of a busy server; 0 if it names none, or answers."""
    url, headers = location.text, {"Range": "bytes=0-0"}
    if target is not None and target.signed is not None:
        url, headers = target.signed.url, {**target.signed.headers, **headers}
    elif location.scheme == "s3":
        url = _presigned(target)
    if not url.startswith(("http://", "https://")):
        return 0.0
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=ATTEMPT_S / 3
        ):
            return 0.0
    except urllib.error.HTTPError as exc:
        return parse_retry_after(exc.headers.get("Retry-After", ""))
    except (OSError, HTTPException, ValueError):  # no answer, or a URL that urllib refuses
        return 0.0


def _presigned(target: Target | None) -> str:
    if target is None:
        return ""
    try:
        return str(client().sign(target.store, "GET", target.path, timedelta(seconds=60)))
    except Exception:  # stores that cannot sign: then nobody is asked
        return ""
