"""The socket, and what signals do."""

from __future__ import annotations

import socket

import pytest

from ocrdata.errors import UsageError
from ocrtrain.serving.listening import ListenError, bind, is_loopback, url_of


def test_a_port_that_is_taken_is_named() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError, match=f"{port}.*--port") as caught:
            bind("127.0.0.1", port)
        assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("host", "port", "fact"),
    [
        ("127.0.0.1", -1, "-1"),
        ("127.0.0.1", 65536, "65536"),
        ("no.such.host.invalid", 0, "no.such.host.invalid"),
        ("192.0.2.1", 0, "192.0.2.1"),
        ("a" * 70, 0, "aaa"),
    ],
)
def test_an_address_that_is_none_is_a_usage_error(host: str, port: int, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bind(host, port)


def test_loopback_is_told_from_the_world() -> None:
    with bind("localhost", 0) as near, bind("0.0.0.0", 0) as far:
        assert is_loopback(near) and not is_loopback(far)
        assert url_of(far) == f"http://0.0.0.0:{far.getsockname()[1]}"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_with_colons_is_in_brackets() -> None:
    try:
        bound = bind("::1", 0)
    except UsageError:
        pytest.skip("no IPv6 on loopback")
    with bound:
        assert is_loopback(bound)
        assert url_of(bound) == f"http://[::1]:{bound.getsockname()[1]}"
