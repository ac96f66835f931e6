"""The nginx of the tests serves ranges, plain and over TLS, and counts what it served."""

import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import nginx as module
from tests.support.servers.nginx import Nginx, Request

DATA = bytes(range(256)) * 40


def get(url: str, context: ssl.SSLContext | None = None, **headers: str) -> tuple[int, bytes, str]:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, context=context) as answer:
        return answer.status, answer.read(), answer.headers["ETag"]


@pytest.fixture
def path(nginx: Nginx, tmp_path: Path) -> str:
    (tmp_path / "data").write_bytes(DATA)
    return nginx.publish(tmp_path) + "/data"


def test_ranges_and_etags(nginx: Nginx, path: str) -> None:
    _, body, etag = get(nginx.url + path)
    assert body == DATA and etag
    found = get(nginx.url + path, Range="bytes=300-309", **{"If-Match": etag})
    assert found == (206, DATA[300:310], etag)
    with pytest.raises(urllib.error.HTTPError, match="412"):
        get(nginx.url + path, **{"If-Match": '"another"'})
    whole, part, refused = nginx.requests(path, count=3)
    assert (whole.status, whole.bytes, whole.range) == (200, len(DATA), "-")
    assert (part.status, part.bytes, part.range) == (206, 10, "bytes=300-309")
    assert refused.status == 412


def test_tls_is_trusted_by_its_authority_alone(nginx: Nginx, path: str) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(nginx.tls_url + path)
    trusting = ssl.create_default_context(cafile=nginx.certificate.authority)
    assert get(nginx.tls_url + path, trusting)[1] == DATA


def test_obstore_trusts_the_authority_by_environment(nginx: Nginx, path: str) -> None:
    """In a process of its own, since a client may read the variable only once."""
    code = (
        "import sys, obstore\nfrom obstore.store import HTTPStore\n"
        "url, name = sys.argv[1].rsplit('/', 1)\n"
        "store = HTTPStore.from_url(url, retry_config={'max_retries': 0})\n"
        "print(bytes(obstore.get_range(store, name, start=256, end=260)))"
    )
    words = [sys.executable, "-c", code, nginx.tls_url + path]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    assert plain.returncode and "certificate" in plain.stderr.lower()
    env = {**os.environ, "SSL_CERT_FILE": str(nginx.certificate.authority)}
    trusting = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert trusting.stdout.strip() == str(DATA[256:260])


def test_a_missing_nginx_fails_under_ci_and_skips_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "find_nginx", lambda: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=module.INSTALL):
        module.need_nginx()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=module.INSTALL):
        module.need_nginx()


def test_requests_are_read_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text("206 10 GET /0/a bytes=0-9\n404 0 HEAD /1/b -\n")
    server = Nginx(tmp_path, 1, 2, None)  # type: ignore[arg-type]  # the log alone is read
    assert server.requests("/1") == [Request(404, 0, "HEAD", "/1/b", "-")]
