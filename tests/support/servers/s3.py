"""S3 servers over real connections: moto's, which enforces If-Match, and nanio, which ignores it.

Both check credentials as far as they do: nanio verifies signatures, moto accepts any. Each runs in
a process of its own (`python -m tests.support.servers.s3 moto|nanio FOLDER`).
"""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.servers.process import announced_port, running

if TYPE_CHECKING:
    from obstore.store import S3Store

ACCESS_KEY, SECRET_KEY = "tests-access-key", "tests-secret-key"
BUCKET = "shards"


@dataclass(frozen=True)
class S3Server:
    """A running server with an empty bucket. `variables` are what a client needs in its
    environment."""

    port: int
    bucket: str = BUCKET

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def url(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{key}"

    def store(self) -> S3Store:
        """The bucket by obstore, not by our own client."""
        from obstore.store import S3Store

        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Put every file of a folder under `prefix`; returns the URL of the folder."""
        import obstore

        store = self.store()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            obstore.put(store, f"{prefix}/{path.relative_to(folder)}", path)
        return self.url(prefix)

    def files(self, prefix: str) -> dict[str, bytes]:
        """What lies under `prefix`: the part of each key after it, and the bytes."""
        import obstore

        store = self.store()
        keys = [entry["path"] for entry in obstore.list(store, f"{prefix}/").collect()]
        return {
            key.removeprefix(f"{prefix}/"): bytes(obstore.get(store, key).bytes()) for key in keys
        }


@contextmanager
def serve_s3(kind: str, folder: Path) -> Iterator[S3Server]:
    """Run 'moto' or 'nanio' with its files in `folder`."""
    log = folder / f"{kind}.log"
    if kind == "nanio":
        (folder / BUCKET).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.support.servers.s3", kind, str(folder)]
    with running(command, log=log) as process:
        server = S3Server(announced_port(process, log))
        if kind == "moto":
            request = urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request).close()
        yield server


def _run_moto(listening: socket.socket, _: Path) -> None:
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    host, port = listening.getsockname()
    make_server(
        host,
        port,
        create_backend_app("s3"),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listening.fileno(),
    ).serve_forever()


def _run_nanio(listening: socket.socket, folder: Path) -> None:
    import uvicorn
    from nanio.app import build_app
    from nanio.auth.credentials import StaticCredentialResolver
    from nanio.config import Settings

    credentials = StaticCredentialResolver({ACCESS_KEY: SECRET_KEY})
    app = build_app(Settings(data_dir=folder, credentials=credentials))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


SERVERS = {"moto": _run_moto, "nanio": _run_nanio}


def main() -> None:
    kind, folder = sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        # Clients that connect before the server accepts wait in the backlog.
        print(listening.getsockname()[1], flush=True)
        SERVERS[kind](listening, Path(folder))


if __name__ == "__main__":
    main()
