"""The proxy passes bytes unchanged, not before its latency, and not faster than its rate."""

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.servers.faulty import FaultServer
from tests.support.servers.proxy import Proxy, serve_proxy

DATA = os.urandom(1 << 20)
DELAY, RATE = 0.02, 20e6


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with (
        FaultServer({"data": DATA}) as server,
        serve_proxy(server.server_address[1], tmp_path, delay=DELAY, rate=RATE) as proxy,
    ):
        yield proxy


def timed(action: Callable[[], bytes]) -> tuple[bytes, float]:
    began = time.monotonic()
    return action(), time.monotonic() - began


def test_latency_bandwidth_and_counts(proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.port}/data"

    def get(asked: str) -> bytes:
        request = urllib.request.Request(url, headers={"Range": asked})
        with urllib.request.urlopen(request) as answer:
            return answer.read()  # type: ignore[no-any-return]

    first, seconds = timed(lambda: get("bytes=0-9"))
    assert first == DATA[:10] and seconds >= 4 * DELAY  # the handshake, and there and back
    with ThreadPoolExecutor(4) as threads:
        bodies, seconds = timed(lambda: list(threads.map(get, ["bytes=0-"] * 4)))
    assert bodies == [DATA] * 4
    assert seconds >= 4 * DELAY + 4 * len(DATA) / RATE - 0.01
    counts = proxy.counts()
    assert counts.connections == 5 and counts.down > 4 * len(DATA) and counts.up > 5 * 50


def test_refused_and_closed_connections_are_passed_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with serve_proxy(port, tmp_path, delay=0.0, rate=1e9) as proxy:

            def answer() -> None:
                connection, _ = listening.accept()
                with connection:
                    assert connection.recv(10) == b"ping"
                    assert connection.recv(10) == b""  # the client's end of file
                    connection.sendall(b"pong")

            thread = threading.Thread(target=answer)
            thread.start()
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                client.sendall(b"ping")
                client.shutdown(socket.SHUT_WR)
                assert client.makefile("rb").read() == b"pong"
            thread.join()
            listening.close()
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                assert client.recv(10) == b""
