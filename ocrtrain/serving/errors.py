"""Errors of single requests, in OpenAI's format.

`{"error": {"message", "type", "param", "code"}}` with a status; clients raise an exception of their
own for each status, and try again after 408, 409, 429 and 5xx.
"""

from __future__ import annotations

from typing import Any

INVALID = "invalid_request_error"

RETRY_AFTER = 1
"""Seconds, in the header Retry-After of a 429: a slot of the queue is free after an answer."""


class RequestError(Exception):
    """A request that is refused, or that fails; `param` is the field at fault."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code

    def body(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """What clients go by beside the status."""
        if self.status == 429:
            return {"Retry-After": str(RETRY_AFTER)}
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {}


def busy(what: str) -> RequestError:
    """The server has no room for another request now."""
    return RequestError(
        f"{what}; try again later", status=429, kind="rate_limit_error", code="server_busy"
    )
