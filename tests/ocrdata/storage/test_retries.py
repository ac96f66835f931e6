"""What a failed request means, and how long a busy server is left alone."""

import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from ocrdata.errors import TransportError
from ocrdata.storage import retries
from ocrdata.storage.location import Location
from ocrdata.storage.remote import fetch
from ocrdata.storage.retries import Attempts, explain, parse_retry_after
from ocrdata.storage.stores import Target
from tests.support.far import Asked, FarFolder, Reply


class GenericError(Exception):
    """Named as the client's."""


GenericError.__module__ = "obstore.exceptions"


@pytest.mark.parametrize(
    "text, code, final",
    [
        ("Server returned non-2xx status code: 429 Too Many Requests: ", 429, False),
        ("Server returned non-2xx status code: 500 Internal Server Error", 500, False),
        ("status server error (503 Service Unavailable) for url (http://h/x?k=s)", 503, False),
        ("Server returned non-2xx status code: 400 Bad Request: <Error>k</Error>", 400, True),
        ("HTTP error: error sending request: dns error: failed to lookup address", 0, False),
        ("HTTP error: operation timed out", 0, False),
        ("something new at https://host/x?signature=secret", 0, False),
    ],
)  # fmt: skip
def test_meaning_of_a_failure(text: str, code: int, final: bool) -> None:
    problem = explain(GenericError(text))
    assert (problem.code, problem.final) == (code, final)
    assert not any(secret in problem.text for secret in ("secret", "k=s", "<Error>"))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after("7") == 7
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < parse_retry_after(format_datetime(soon, usegmt=True)) <= 30
    for value in ("", "soon", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert parse_retry_after(value) == 0


def test_all_wait_while_a_server_asks_to_be_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "y").write_bytes(b"another")
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)
    answered: list[float] = []

    def busy(asked: Asked) -> Reply | None:
        answered.append(time.monotonic())
        return Reply(status=503, headers={"Retry-After": "1"}) if asked.number < 2 else None

    with FarFolder(tmp_path, busy) as far:
        assert fetch(Location(far.url + "/x"), 0, 7).data == b"content"
        assert fetch(Location(far.url + "/y"), 0, 7).data == b"another"
    # The second request only asks how long to wait.
    assert far.paths == ["/x", "/x", "/x", "/y"] and far.asked[1].range == (0, 1)
    assert answered[2] - answered[1] >= 1


def test_a_busy_server_is_seldom_asked_how_long_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"content")
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)

    def busy(asked: Asked) -> Reply | None:
        return Reply(status=429) if asked.number < 6 else None

    with FarFolder(tmp_path, busy) as far:
        assert fetch(Location(far.url + "/x"), 0, 7).data == b"content"
    questions = [asked.number for asked in far.asked if asked.range == (0, 1)]
    assert questions == [1] and len(far.asked) == 7


def test_waiting_is_said_once_and_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SAY_AFTER_S", 0.01)
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.1)
    monkeypatch.setattr(retries, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.02)
    attempts = Attempts(Location("https://user:secret@host/x-003.tar?k=secret"))

    def attempt() -> None:
        raise GenericError("HTTP error: connection refused")

    with caplog.at_level(logging.WARNING), pytest.raises(TransportError) as caught:
        attempts.run(attempt)
    (said,) = caplog.messages
    for text in (said, str(caught.value)):
        assert "https://host/x-003.tar: " in text and "secret" not in text


def test_a_fault_of_ours_is_not_tried_again() -> None:
    tried = []

    def attempt() -> None:
        tried.append(1)
        raise KeyError("ours")

    with pytest.raises(KeyError):
        Attempts(Location("https://host/x")).run(attempt)
    assert len(tried) == 1


@pytest.mark.parametrize("name", ["a b.tar?k=secret x", "é.tar", "a\nb.tar"])
def test_a_busy_server_and_a_url_that_cannot_be_asked_for_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.1)
    with (
        FarFolder(tmp_path, lambda _: Reply(status=503)) as far,
        pytest.raises(TransportError, match="status 503") as caught,
    ):
        fetch(Location(f"{far.url}/{name}"))
    assert "secret" not in str(caught.value)


def test_a_host_that_stays_busy_is_not_waited_for_beyond_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retries._hosts, "wait", lambda _, most: waits.append(most))
    location = Location("https://host/x")
    attempts = Attempts(location)
    attempts._began -= retries.GIVE_UP_S - 3
    attempts.before(Target(None, "", "host"))
    assert 0 < waits[0] <= 3
