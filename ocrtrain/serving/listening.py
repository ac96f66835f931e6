"""A listening socket, and uvicorn on it until a signal; what is being answered is finished."""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ocrdata.errors import OcrError, UsageError

SIGNALS = (signal.SIGINT, signal.SIGTERM)

BACKLOG = 2048
"""Connections that the kernel may hold before they are accepted, as uvicorn has it."""


class ListenError(OcrError):
    """An address that cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on an address: who connects waits until `Server` answers. Port 0 is any
    free one.

    Raises UsageError for a host or port that is none, ListenError where the port is taken or not
    allowed.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: must be 1 to 65535, or 0: any free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"--host {host}: not an address of this machine") from exc
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host}: not an address of this machine") from exc
        remedy = "; choose another --port" if exc.errno == errno.EADDRINUSE else ""
        raise ListenError(f"port {port} of {host}: {exc.strerror}{remedy}") from exc
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only programs of this machine reach a socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """`http://127.0.0.1:8000`."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn with an app, which calls `ready` once it answers.

    The first Ctrl-C or SIGTERM closes the socket, and what was asked before is answered, for at
    most `timeout` seconds; a Ctrl-C after it ends at once. Without the environment's settings:
    neither proxies' headers nor WebSockets are looked at.
    """

    def __init__(self, app: ASGIApp, *, timeout: float, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None,
                access_log=False, proxy_headers=False, server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=math.ceil(timeout) + 1,
            )
        )  # fmt: skip
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again at its end, so that a drained server would end as
        a killed one. Without a main thread there are no signals to listen for."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self.should_exit and sig == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.should_exit:
            # Not `print`: the signal may have come while a line was being printed.
            os.write(2, b"\nfinishing what is being answered; press Ctrl-C to stop at once\n")
        self.should_exit = True
