"""A distant server: a TCP proxy that adds latency and caps the bandwidth, as the kernel could.

Each direction is one link that all connections share, in turns of at most 64 KiB; every piece then
takes `delay` seconds. A new connection costs a round trip before its first byte leaves, as TCP's
handshake does. The proxy runs in a process of its own (`python -m tests.support.servers.proxy PORT
DELAY RATE`), so that its CPU time is not the client's, and passes TLS through untouched.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tests.support.servers.process import announced_port, running

DELAY = 0.015
"""Seconds each way."""

RATE = 50e6
"""Bytes a second each way, over all connections."""

PIECE = 1 << 16

LATE = 0.005
"""Seconds of a link's time that are not lost when a timer is late."""


@dataclass(frozen=True)
class Counts:
    """Since the start: connections accepted, bytes from the clients and to them."""

    connections: int
    up: int
    down: int


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    port: int
    process: Popen[str]

    def counts(self) -> Counts:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Counts(**json.loads(self.process.stdout.readline()))


@contextmanager
def serve_proxy(
    port: int, folder: Path, *, delay: float = DELAY, rate: float = RATE
) -> Iterator[Proxy]:
    """Put a proxy before a server on 127.0.0.1; its log goes into `folder`."""
    log = folder / "proxy.log"
    command = [sys.executable, "-m", "tests.support.servers.proxy", *map(str, (port, delay, rate))]
    with running(command, log=log) as process:
        yield Proxy(announced_port(process, log), process)


@dataclass
class _Link:
    """One direction: what went over it, and when it is free again."""

    rate: float
    bytes: int = 0
    free: float = 0.0

    def passed(self, size: int, now: float) -> float:
        """The time at which `size` bytes, sent now, have passed."""
        self.bytes += size
        self.free = max(now - LATE, self.free) + size / self.rate
        return self.free


class _End(asyncio.BufferedProtocol):
    """One end of a connection: what arrives here goes over `link` and leaves from the other end."""

    transport: asyncio.Transport
    other: _End | None = None

    def __init__(self, link: _Link, delay: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.link, self.delay = link, delay
        self.buffer = bytearray(PIECE)
        self.line: deque[Callable[[asyncio.Transport], None]] = deque()
        self.latest = 0.0  # nothing leaves before this time
        self.waits = 0  # reasons not to read
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, _: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        data = bytes(memoryview(self.buffer)[:size])
        now = self.loop.time()
        passed = self.link.passed(size, now)
        if passed > now:
            self.wait()  # no connection has more than one piece before the link
            self.loop.call_at(passed, self.go_on)
        self.later(max(passed, now), lambda transport: transport.write(data))

    def later(self, at: float, act: Callable[[asyncio.Transport], None]) -> None:
        """Act on the other end, `delay` seconds after `at` and in the order of the calls."""
        self.latest = max(self.latest, at + self.delay)
        self.line.append(act)
        self.loop.call_at(self.latest, self._act)

    def _act(self) -> None:
        act = self.line.popleft()
        if self.other is not None and not self.other.transport.is_closing():
            act(self.other.transport)

    def eof_received(self) -> bool:
        self.ended = True
        self.later(0.0, self._pass_end)
        return True  # the other direction stays open

    def _pass_end(self, transport: asyncio.Transport) -> None:
        if self.other is not None and self.other.ended:
            transport.close()
            self.transport.close()
        else:
            transport.write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        self.later(0.0, lambda transport: transport.close())

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.wait()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.go_on()

    def wait(self) -> None:
        """Stop reading, until `go_on` was called as often as `wait`."""
        self.waits += 1
        self.transport.pause_reading()

    def go_on(self) -> None:
        self.waits -= 1
        if not self.waits:
            self.transport.resume_reading()


async def _serve(port: int, delay: float, rate: float) -> None:
    loop = asyncio.get_running_loop()
    up, down = _Link(rate), _Link(rate)
    connections: set[asyncio.Task[None]] = set()
    accepted = 0

    async def connect(client: _End) -> None:
        try:
            _, server = await loop.create_connection(lambda: _End(down, delay), "127.0.0.1", port)
        except OSError:
            client.transport.abort()
            return
        client.other, server.other = server, client
        if client.transport.is_closing():
            server.transport.close()
        client.go_on()

    class Accepted(_End):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal accepted
            accepted += 1
            super().connection_made(transport)
            self.latest = loop.time() + 3 * delay  # the handshake, then one way
            self.wait()
            task = loop.create_task(connect(self))
            connections.add(task)
            task.add_done_callback(connections.discard)

    def report() -> None:
        if sys.stdin.readline():
            counts = {"connections": accepted, "up": up.bytes, "down": down.bytes}
            print(json.dumps(counts), flush=True)
        else:
            loop.remove_reader(sys.stdin)

    loop.add_reader(sys.stdin, report)
    server = await loop.create_server(lambda: Accepted(up, delay), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
