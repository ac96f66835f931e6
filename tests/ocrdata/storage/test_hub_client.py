"""What is said of a hub that does not deliver, with a real server and the real client.

The endpoint is fixed when the client is imported; hence the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import SourceError, UnreachableError, UsageError
from ocrdata.storage import hub_client
from ocrdata.storage.hub_client import explain, request
from tests.support.far import FarFolder, Reply
from tests.support.shardcommand import environment

SIGNED = "http://127.0.0.1:9/data?X-Amz-Signature=secret"
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "known": (200, {}, b'{"sha": "0123", "siblings": []}'),
    "absent": (404, {"X-Error-Code": "RepoNotFound"}, b""),
    "gated": (403, {"X-Error-Code": "GatedRepo"}, b""),
    "revision": (404, {"X-Error-Code": "RevisionNotFound"}, b""),
    "forbidden": (403, {}, b""),
    "teapot": (418, {}, b""),
    "busy": (503, {}, b""),
    "page": (200, {}, b"<html>log in</html>"),
    "list": (200, {}, b"[1]"),
    "signed": (302, {"Location": SIGNED}, b""),
    "cut": (200, {"Content-Length": "100"}, b"{"),
}


class Server(ThreadingHTTPServer):
    """Answers by the name of the repository, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, headers, body = ANSWERS[self.path.split("/")[4]]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


SCRIPT = """
import json, sys
from ocrdata.errors import OcrError
from ocrdata.storage import hub_client

hub_client.FIRST_WAIT_S = 0.01
answers = []
for call in json.loads(sys.argv[1]):
    try:
        answers.append(hub_client.repository_info(*call))
    except OcrError as exc:
        answers.append([type(exc).__name__, str(exc)])
print(json.dumps(answers))
"""


def ask(home: Path, endpoint: str, calls: list[tuple[str, str, str]], **env: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(calls)],
        env=environment(home, endpoint, HF_TOKEN="hf_secret", **env),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "secret" not in done.stdout
    answers: list[Any] = json.loads(done.stdout)
    return answers


KEPT = "finished work is kept"


def test_errors_name_the_repository_the_hub_and_the_remedy(server: Server, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    cases = {
        "absent": ("SourceError", "no such", "404", "HF_TOKEN", endpoint),
        "gated": ("SourceError", "gated", "HF_TOKEN", endpoint),
        "revision": ("SourceError", "no revision v/9", "404", endpoint),
        "forbidden": ("SourceError", "status 403", endpoint),
        "teapot": ("UnreachableError", "status 418", endpoint),
        "busy": ("UnreachableError", "status 503", endpoint),
        "page": ("SourceError", "HF_ENDPOINT", endpoint),
        "list": ("SourceError", "HF_ENDPOINT", endpoint),
        "signed": ("UnreachableError", "Connection refused", endpoint),
        "cut": ("UnreachableError", "not responding", endpoint),
    }
    kinds = ("data set", "model")
    calls = [(f"some/{name}", "v/9", kind) for kind in kinds for name in cases]
    answers = ask(tmp_path, endpoint, [("some/known", "", "model"), *calls])
    assert answers[0]["sha"] == "0123"
    assert ("/api/models/some/known", "Bearer hf_secret") in server.asked
    for call, (error, message) in zip(calls, answers[1:], strict=True):
        expected, *facts = cases[call[0].removeprefix("some/")]
        assert error == expected, message
        assert message.startswith(call[0]) and "\n" not in message
        assert all(fact in message for fact in facts), message
        if expected == "UnreachableError":
            assert (KEPT in message) == (call[2] == "data set"), message
    paths = [path for path, _ in server.asked]
    assert paths.count("/api/datasets/some/busy/revision/v%2F9") == 4
    assert paths.count("/api/models/some/absent/revision/v%2F9") == 1


def test_a_hub_that_is_switched_off_or_refuses_connections(tmp_path: Path) -> None:
    call = ("some/known", "main", "data set")
    nobody = "http://127.0.0.1:9"
    [[error, message]] = ask(tmp_path, nobody, [call], HF_HUB_OFFLINE="1")
    assert error == "UnreachableError" and "HF_HUB_OFFLINE; unset it" in message
    [[error, message]] = ask(tmp_path, nobody, [call])
    assert error == "UnreachableError" and KEPT in message
    assert f"{nobody} is not responding (Connection refused)" in message


def test_errors_of_others_pass() -> None:
    for error in (KeyError("a"), OSError("disk"), UsageError("split"), SourceError("short")):
        with pytest.raises(type(error)) as caught, explain("some/known", "main", "data set"):
            raise error
        assert caught.value is error


def test_an_error_that_is_its_own_cause() -> None:
    error = ValueError("a")
    error.__cause__ = error
    with pytest.raises(ValueError, match="a"), explain("some/known", "main", "data set"):
        raise error


def test_a_signed_url_in_a_clients_error_is_not_shown() -> None:
    with pytest.raises(UnreachableError) as caught, explain("some/known", "main", "data set"):
        raise ConnectionError(f"GET {SIGNED} failed")
    assert "secret" not in str(caught.value) and "GET" in str(caught.value)


@pytest.mark.parametrize(
    "headers, seconds", [({"Retry-After": "7"}, 7), ({"RateLimit": '"api";r=0;t=9'}, 9), ({}, 0.5)]
)
def test_a_hub_that_limits_requests_is_left_alone_as_long_as_it_asks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    seconds: float,
) -> None:
    (tmp_path / "x").write_bytes(b"content")
    waited: list[float] = []
    monkeypatch.setattr(hub_client.time, "sleep", waited.append)
    with FarFolder(tmp_path, lambda one: Reply(429, headers) if one.number < 1 else None) as far:
        assert request(f"{far.url}/x?signature=secret", {}, 3).content == b"content"
    assert len(waited) == 1 and seconds <= waited[0] <= 1.1 * seconds
    said = [message for message in caplog.messages if "429" in message]
    assert len(said) == (seconds > hub_client.SAY_AFTER_S) and "secret" not in caplog.text
    assert all("/x: " in message and f"in {seconds:.0f} s" in message for message in said)
