"""Which client reads a URL."""

from pathlib import Path

import pytest

from ocrdata.errors import UsageError
from ocrdata.storage.location import Location
from ocrdata.storage.stores import SCHEMES, check_scheme, store_of


def test_objects_of_a_host_share_a_client() -> None:
    one, path = store_of(Location("https://host/a/x-000.tar"))
    other, _ = store_of(Location("https://host/b/y-000.tar"))
    elsewhere, _ = store_of(Location("https://host:444/a/x-000.tar"))
    assert one is other and one is not elsewhere and path == "a/x-000.tar"


def test_a_signed_or_unusual_url_has_its_own() -> None:
    for text in (
        "https://host/x.tar?signature=a",
        "https://host/a%20b.tar",
        "https://host/a,b.tar",
    ):
        store, path = store_of(Location(text))
        assert path == "" and store is not store_of(Location("https://host/x.tar"))[0]


def test_objects_of_a_bucket_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    one, path = store_of(Location("s3://bucket/a/x 000.tar"))
    assert one is store_of(Location("s3://bucket/y"))[0] and path == "a/x 000.tar"
    assert one is not store_of(Location("s3://other/y"))[0]


def test_other_schemes_are_refused() -> None:
    for scheme in SCHEMES:
        check_scheme(Location(f"{scheme}://a/b"))
    with pytest.raises(UsageError, match=r"^gs://bucket/x: gs:// .*s3://"):
        check_scheme(Location("gs://bucket/x"))


def test_a_certificate_file_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE .*absent\.pem"):
        store_of(Location("https://certificates.example/x"))


@pytest.mark.parametrize(
    "url",
    ["http:///x", "https://host:99999/x", "https://xn--ü.invalid/x", "s3:///x", "s3://a b/x",
     "s3://key:secret@bucket/x", "s3://bucket/a//x", "s3://bucket/../x"],
)  # fmt: skip
def test_urls_that_nothing_can_be_read_from(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        store_of(Location(url))
    assert url.partition(":")[0] in str(caught.value) and "secret" not in str(caught.value)


def test_paths_that_the_client_refuses_are_sent_as_they_are() -> None:
    for text in ("https://host/a//x.tar", "https://host/../x.tar"):
        assert store_of(Location(text))[1] == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "secret"),
        ("AWS_ENDPOINT_URL", "http://"),
        ("AWS_REGION", "secret place"),
        ("AWS_ACCESS_KEY_ID", "secret\n"),
        ("AWS_SESSION_TOKEN", "secret\n"),
    ],
)
def test_variables_on_which_the_client_would_panic(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"^{name}: ") as caught:
        store_of(Location(f"s3://bucket-{name.lower()}-{len(value)}/x"))
    assert "secret" not in str(caught.value)


def test_a_certificate_file_without_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "empty.pem"
    file.write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(UsageError, match=r"^https://empty\.example: .*SSL_CERT_FILE"):
        store_of(Location("https://empty.example/x"))
