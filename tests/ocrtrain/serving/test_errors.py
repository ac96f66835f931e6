"""Errors in OpenAI's format."""

from ocrtrain.serving.errors import RETRY_AFTER, RequestError, busy


def test_an_error_names_its_field_and_has_openais_shape() -> None:
    error = RequestError("n is 2", param="n", code="unsupported_value")
    assert error.status == 400
    assert error.body() == {
        "error": {"message": "n is 2", "type": "invalid_request_error", "param": "n",
                  "code": "unsupported_value"}
    }  # fmt: skip
    assert error.headers() == {}


def test_a_busy_server_says_when_to_try_again() -> None:
    error = busy("the queue is full")
    assert (error.status, error.code) == (429, "server_busy")
    assert error.headers() == {"Retry-After": str(RETRY_AFTER)}
    assert RequestError("no", status=401).headers() == {"WWW-Authenticate": "Bearer"}
