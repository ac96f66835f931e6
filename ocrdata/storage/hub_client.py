"""The one way to ask a Hugging Face hub: its timeouts, its retries, and what an error says.

In: a repository of data sets or models. Out: answers, or one error of one line that names the
repository, the hub and the remedy, and holds no header, token or signed URL. `HF_ENDPOINT` names
another hub, `HF_TOKEN` opens gated repositories. The clients are imported on first use: that takes
two seconds, and `--help` needs none.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from ocrdata.errors import OcrError, SourceError, UnreachableError, first_line

TIMEOUT_S = 7.0
"""Seconds without a byte after which a request is given up."""

FIRST_WAIT_S = 0.5
CONTACT_RETRIES = 3
"""First contact: 4 tries with 0.5 + 1 + 2 s between them, 32 s at worst where nothing answers."""

READ_RETRIES = 5
"""In the middle of reading: 6 tries and 15.5 s between them, 58 s at worst."""

LONGEST_WAIT_S = 600.0
"""A hub that limits requests asks for up to five minutes."""

SAY_AFTER_S = 5.0
"""Seconds of waiting after which a warning says what is waited for."""

_BUSY = (429, 500, 502, 503, 504)

_log = logging.getLogger(__name__)

Kind = Literal["data set", "model"]

_CONTINUE = "; run the same command again when it is back: finished work is kept"
"""The remedy of a conversion. A model's files may be in the cache: its caller knows the remedy."""

_CLIENTS = {"httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "datasets"}


def request(url: str, headers: Mapping[str, str], retries: int) -> Any:
    """The client's response to a GET, retried up to `retries` times, after as long as the hub asks
    for. A long wait is a warning. Raises the client's own errors, which `explain` translates."""
    from huggingface_hub.utils import (
        build_hf_headers,
        get_session,
        hf_raise_for_status,
        logging,
        parse_ratelimit_headers,
    )

    logging.set_verbosity_error()  # each retry would be a line or two
    # Compressed answers would have other lengths than the ranges requested.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **headers}
    began = time.monotonic()
    for number in range(retries + 1):
        last = number == retries
        try:
            answer = get_session().request(
                "GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True
            )
        except Exception as exc:
            if last or not _is_from_client(exc):
                raise
            wait, what = 0.0, "is not responding"
        else:
            if last or answer.status_code not in _BUSY:
                hf_raise_for_status(answer)
                return answer
            limit = parse_ratelimit_headers(answer.headers)
            wait = parse_retry_after(answer.headers.get("Retry-After", ""))
            if limit is not None and not limit.remaining:
                wait = float(limit.reset_in_seconds)
            what = f"answers with status {answer.status_code}"
        wait = max(min(wait, LONGEST_WAIT_S), min(FIRST_WAIT_S * 2**number, 8.0))
        elapsed = time.monotonic() - began
        if elapsed + wait > SAY_AFTER_S:
            place = urlsplit(url)
            _log.warning(
                "%s: the hub %s since %.0f s; trying again in %.0f s",
                f"{place.netloc}{place.path}", what, elapsed, wait)  # fmt: skip
        time.sleep(wait * random.uniform(1, 1.1))  # jitter: not all workers at once
    raise AssertionError("the last attempt returns or raises")


def parse_retry_after(value: str) -> float:
    """The seconds that a Retry-After header names, as a number or a date; 0 for anything else."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def repository_info(repository: str, revision: str, kind: Kind) -> dict[str, Any]:
    """What the hub says of a repository at a branch, tag or commit ("" is its default branch).

    This is the first contact: it ends within half a minute. Raises SourceError.
    """
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/{kind.replace(' ', '')}s/{repository}"
    if revision:
        url += f"/revision/{quote(revision, safe='')}"
    with explain(repository, revision, kind):
        answer = request(url, {}, CONTACT_RETRIES)
    try:
        info = answer.json()
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise SourceError(
            f"{repository}: {constants.ENDPOINT} does not answer as a hub does; check HF_ENDPOINT"
        )
    return info


@contextmanager
def explain(repository: str, revision: str, kind: Kind) -> Iterator[None]:
    """Turn what the clients raise into a SourceError, or UnreachableError where a later try or
    the cache may help. Other exceptions pass."""
    try:
        yield
    except OcrError:
        raise
    except Exception as exc:
        chain = list(_chain(exc))
        if not any(map(_is_from_client, chain)):
            raise
        raise _explained(chain, repository, revision, kind) from exc


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # an exception may be its own cause
    while exc is not None and id(exc) not in seen:
        yield exc
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__


def _is_from_client(exc: BaseException) -> bool:
    module = type(exc).__module__.partition(".")[0]
    return module in _CLIENTS or isinstance(exc, (ConnectionError, TimeoutError))


def _explained(
    chain: list[BaseException], repository: str, revision: str, kind: Kind
) -> SourceError:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    endpoint = constants.ENDPOINT
    remedy = _CONTINUE if kind == "data set" else ""
    statuses = [getattr(getattr(exc, "response", None), "status_code", None) for exc in chain]
    status = next((status for status in statuses if isinstance(status, int)), 0)
    for exc in chain:
        if isinstance(exc, hub.OfflineModeIsEnabled):
            return UnreachableError(
                f"{repository}: the hub is switched off by HF_HUB_OFFLINE; unset it"
            )
        if isinstance(exc, hub.GatedRepoError):
            return SourceError(
                f"{repository} is gated: ask for access on {endpoint} and set HF_TOKEN"
            )
        if isinstance(exc, hub.RevisionNotFoundError):
            return SourceError(
                f"{repository} has no revision {revision} on {endpoint} (status {status})"
            )
        if isinstance(exc, hub.RepositoryNotFoundError):
            return SourceError(
                f"{repository}: no such {kind} on {endpoint} (status {status}), or it is private "
                "(set HF_TOKEN)"
            )
    kind_of_error = SourceError if status in (401, 403, 404) else UnreachableError
    said = f"answers with status {status}" if status else f"is not responding ({_reason(chain)})"
    return kind_of_error(f"{repository}: the hub {endpoint} {said}{remedy}")


def _reason(chain: list[BaseException]) -> str:
    """What the operating system says, else the first exception's first line without its URLs, which
    may be signed."""
    codes = [exc.errno for exc in chain if isinstance(exc, OSError) and exc.errno]
    if codes and codes[-1] in errno.errorcode:
        return os.strerror(codes[-1])
    return re.sub(r"\w+://\S+", "its URL", first_line(chain[-1]))
