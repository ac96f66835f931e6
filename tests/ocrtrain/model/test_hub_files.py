"""Fetching from a real server in the hub's layout, by the real client, in a process of its own.

HF_ENDPOINT is read when huggingface_hub is imported; hence the processes.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model_000001.pt": b"old", "model_000002.pt": b"new weights", "readme.md": b"#"}

FETCH = """
import sys
from ocrdata.errors import OcrError
from ocrtrain.model.hub_files import fetch
try:
    chosen = fetch(sys.argv[1], lambda names: [n for n in names if n.endswith("2.pt")])
    print(*[path.read_text() for path in chosen])
except OcrError as exc:
    print(f"{type(exc).__name__}: {exc}")
"""


class ModelHub(BaseHTTPRequestHandler):
    """One repository, owner/name, at one commit."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        revisions = ("main", COMMIT, "v1")
        info = [f"/api/models/owner/name/revision/{name}" for name in revisions]
        files = {f"/owner/name/resolve/{r}/{f}": f for r in revisions for f in FILES}
        if self.path in ["/api/models/owner/name", *info]:
            siblings = [{"rfilename": name} for name in FILES]
            data = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
            self.reply(200, data, {"Content-Type": "application/json"}, body=body)
        elif self.path in files:
            data = FILES[files[self.path]]
            headers = {"ETag": f'"{len(data):040x}"', "X-Repo-Commit": COMMIT}
            self.reply(200, data, headers, body=body)
        else:
            known = self.path.startswith("/api/models/owner/name/")
            error = "RevisionNotFound" if known else "RepoNotFound"
            self.reply(404, b"", {"X-Error-Code": error}, body=body)

    def reply(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ModelHub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(source: str, endpoint: str, home: Path, **more: str) -> str:
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH, source],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NOBODY = "http://127.0.0.1:9"  # the discard port: refused


@pytest.mark.parametrize("source", ["owner/name", f"owner/name@{COMMIT}", "owner/name@v1"])
def test_files_are_fetched_and_then_found_without_the_hub(
    source: str, endpoint: str, tmp_path: Path
) -> None:
    assert run(source, endpoint, tmp_path) == "new weights"
    assert run(source, NOBODY, tmp_path) == "new weights"


def test_an_unreachable_hub_is_reported_in_one_line(tmp_path: Path) -> None:
    line = run("owner/name", NOBODY, tmp_path)
    assert line.startswith("SourceError: owner/name: ") and "\n" not in line
    for fact in (NOBODY, "Connection refused", "nothing is cached", "--init random"):
        assert fact in line


@pytest.mark.torture  # half a minute of waiting
def test_a_hub_that_never_answers_is_reported_within_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        line = run("owner/name", f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        assert time.monotonic() - began < 60
    assert "timed out" in line and "nothing is cached" in line


@pytest.mark.parametrize(
    ("source", "missing"),
    [("owner/other", "no such model"), ("owner/name@nowhere", "no revision nowhere")],
)
def test_a_missing_repository_or_revision(
    source: str, missing: str, endpoint: str, tmp_path: Path
) -> None:
    line = run(source, endpoint, tmp_path)
    assert line.startswith(f"SourceError: {source.partition('@')[0]}")
    for fact in (missing, endpoint, "status 404"):
        assert fact in line


def test_a_cached_file_is_used_where_the_hub_is_switched_off(endpoint: str, tmp_path: Path) -> None:
    assert run("owner/name", endpoint, tmp_path) == "new weights"
    assert run("owner/name", endpoint, tmp_path, HF_HUB_OFFLINE="1") == "new weights"
    line = run("owner/name", endpoint, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in line and "nothing is cached" in line


@pytest.mark.parametrize("source", ["a/b/c", "owner name", "owner/..name"])
def test_what_can_name_neither_a_folder_nor_a_repository(source: str, tmp_path: Path) -> None:
    line = run(source, NOBODY, tmp_path)
    assert line.startswith(f"UsageError: {source}: ")


def test_a_cache_that_cannot_be_written(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    line = run("owner/name", endpoint, tmp_path / "file")
    assert line.startswith("SourceError: owner/name: ") and "cache" in line
