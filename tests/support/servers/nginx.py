"""nginx: folders by HTTP, plain and over TLS, with ranges, ETag and If-Match."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.servers.certificate import Certificate, make_certificate
from tests.support.servers.process import running
from tests.support.waiting import until

INSTALL = "apt-get install --no-install-recommends nginx"

# One process, since workers can outlive a master that is killed. `reuseport` lets it listen on the
# ports that are reserved for it, see `_reserved`.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    default_type application/octet-stream;
    log_format requests '$status $body_bytes_sent $request_method $uri $http_range';
    access_log {folder}/access.log requests;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{plain} reuseport;
        listen 127.0.0.1:{tls} ssl reuseport;
        ssl_certificate {certificate.certificate};
        ssl_certificate_key {certificate.key};
        root {folder}/root;
    }}
}}
"""


def find_nginx() -> str | None:
    """The program; Debian keeps it out of the PATH of ordinary users."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def need_nginx() -> str:
    """The program. Where it is missing the test is skipped with the command that installs it, and
    fails under CI, which installs it itself."""
    program = find_nginx()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"nginx is missing, although .ci/run installs it: {INSTALL}")
        pytest.skip(f"nginx is missing; install it: sudo {INSTALL}")
    return program


@dataclass(frozen=True)
class Request:
    """A request that was answered. `range` is as the client wrote it, or "-"."""

    status: int
    bytes: int
    method: str
    path: str
    range: str


@dataclass(frozen=True)
class Nginx:
    """A running server. `certificate.authority` is what clients of `tls_url` must trust."""

    folder: Path
    plain_port: int
    tls_port: int
    certificate: Certificate
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.plain_port}"

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    def publish(self, folder: Path) -> str:
        """The path under which a folder is served from now on, such as "/0"."""
        name = f"{next(self._numbers)}"
        (self.folder / "root" / name).symlink_to(folder.resolve())
        return f"/{name}"

    def requests(self, path: str = "/", *, count: int = 0) -> list[Request]:
        """The requests whose path begins with `path`, in the order they were completed. nginx
        writes its log after its answers: waits until there are `count`, a minute at most."""
        found: list[Request] = []

        def enough() -> bool:
            lines = (self.folder / "access.log").read_text().splitlines()
            fields = (line.split(maxsplit=4) for line in lines)
            read = (Request(int(f[0]), int(f[1]), f[2], f[3], f[4]) for f in fields)
            found[:] = [request for request in read if request.path.startswith(path)]
            return len(found) >= count

        until(enough)
        return found


def _reserved() -> socket.socket:
    """A socket that keeps a free port: it is bound but does not listen, so that all connections go
    to whoever listens there."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


@contextmanager
def serve_nginx(folder: Path, *, program: str) -> Iterator[Nginx]:
    """Run nginx with its files in `folder`, which must be empty."""
    (folder / "root").mkdir()
    with _reserved() as plain, _reserved() as tls:
        server = Nginx(
            folder, plain.getsockname()[1], tls.getsockname()[1], make_certificate(folder)
        )
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                plain=server.plain_port,
                tls=server.tls_port,
                certificate=server.certificate,
            )
        )
        log = folder / "error.log"
        command = [program, "-c", str(configuration), "-e", str(log)]
        with running(command, log=folder / "stderr.log") as process:
            assert until(lambda: process.poll() is not None or _listens(server)), log.read_text()
            assert process.poll() is None, log.read_text()
            yield server


def _listens(server: Nginx) -> bool:
    try:
        for port in (server.plain_port, server.tls_port):
            socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
