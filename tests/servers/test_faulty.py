"""The fault server's answers are what their names say, as read from a plain socket."""

import itertools
import re
import socket
import time

import pytest

from tests.support.servers.faulty import FAULTS, PERMANENT, FaultServer, etag_of

DATA = bytes(n * 7 % 251 for n in range(9_000))
START, STOP = 2_000, 4_000


Answer = tuple[str, dict[str, str], bytes]


def ask(server: FaultServer, *headers: str, seconds: float = 10.0) -> Answer:
    """Status line, headers and all that follows until the end of the connection."""
    with socket.create_connection(server.server_address[:2], timeout=seconds) as connection:
        lines = ["GET /data HTTP/1.1", "Host: x", "Connection: close", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields), body


def ask_range(server: FaultServer, *headers: str) -> Answer:
    return ask(server, f"Range: bytes={START}-{STOP - 1}", *headers)


def one(fault: str) -> FaultServer:
    return FaultServer({"data": DATA}, [fault], times=1, seed=3)


def test_the_second_request_for_a_range_is_answered_rightly() -> None:
    with one("503") as server:
        assert "503" in ask_range(server)[0]
        status, headers, body = ask_range(server, f"If-Match: {etag_of(DATA)}")
        assert "206" in status and body == DATA[START:STOP]
        assert headers["Content-Range"] == f"bytes {START}-{STOP - 1}/{len(DATA)}"
        asked = f"bytes={START}-{STOP - 1}"
        assert [(r.path, r.range, r.fault, r.status) for r in server.requests] == [
            ("data", asked, "503", 503),
            ("data", asked, "", 206),
        ]
        assert server.requests[1].if_match == etag_of(DATA)
        assert "412" in ask_range(server, 'If-Match: "another"')[0]


@pytest.mark.parametrize(
    ("fault", "status", "said", "body"),
    [
        ("wrong range", "206", (START - 512, STOP - 512), DATA[START - 512 : STOP - 512]),
        ("lying range", "206", (START + 1, STOP + 1), DATA[START:STOP]),
        ("short range", "206", (START, 3_000), DATA[START:3_000]),
        ("whole file", "200", None, DATA),
    ],
)
def test_wrong_places(fault: str, status: str, said: tuple[int, int] | None, body: bytes) -> None:
    with one(fault) as server:
        line, headers, found = ask_range(server)
    place = re.match(r"bytes (\d+)-(\d+)/", headers.get("Content-Range", ""))
    assert status in line and found == body and int(headers["Content-Length"]) == len(body)
    assert said == (place and (int(place[1]), int(place[2]) + 1))


def test_cut_and_other_bytes() -> None:
    with one("cut") as server:
        _, headers, body = ask_range(server)
    assert int(headers["Content-Length"]) == STOP - START > len(body)
    assert DATA[START:STOP].startswith(body)
    with one("other bytes") as server:
        _, headers, body = ask_range(server)
    assert int(headers["Content-Length"]) == len(body) and headers["ETag"] == etag_of(DATA)
    pairs = zip(body, DATA[START:STOP], strict=True)
    assert 20 < sum((a ^ b).bit_count() for a, b in pairs) <= 32


@pytest.mark.parametrize("fault", ["reset", "reset at once"])
def test_resets(fault: str) -> None:
    with one(fault) as server, pytest.raises(ConnectionResetError):
        ask_range(server)


def test_changes() -> None:
    other = DATA[::-1]
    with one("changed") as server:
        _, headers, body = ask_range(server, f"If-Match: {etag_of(DATA)}")
    assert body == other[START:STOP] and headers["ETag"] == etag_of(other)
    with one("replaced") as server:
        assert "412" in ask_range(server, f"If-Match: {etag_of(DATA)}")[0]


@pytest.mark.parametrize("fault", [name for name in FAULTS if name[0].isdigit()])
def test_statuses(fault: str) -> None:
    with one(fault) as server:
        status, headers, _ = ask_range(server)
    assert fault[:3] in status and ("Retry-After" in headers) == fault.endswith("Retry-After")


def test_a_file_without_faults() -> None:
    with FaultServer({"data": DATA}) as server:
        status, headers, body = ask(server)
        assert "200" in status and body == DATA and "Content-Range" not in headers
        assert "416" in ask(server, "Range: bytes=9000-")[0]


def test_a_redirect_to_itself() -> None:
    with one("redirect loop") as server:
        status, headers, _ = ask_range(server)
    assert "302" in status and headers["Location"] == "/data"


def test_silence_and_drip() -> None:
    with one("silence") as server, pytest.raises(TimeoutError):
        ask(server, seconds=0.1)
    with one("drip") as server, socket.create_connection(server.server_address[:2]) as client:
        client.sendall(b"GET /data HTTP/1.1\r\nHost: x\r\nRange: bytes=0-99\r\n\r\n")
        received, began = b"", time.monotonic()
        while len(received.partition(b"\r\n\r\n")[2]) < 2:
            received += client.recv(1 << 16)
        assert time.monotonic() - began > 0.9 and received.endswith(DATA[:2])


def test_faults_are_a_function_of_the_seed_and_not_of_the_order() -> None:
    names = [f"bytes={n}-{n + 9}" for n in range(200)]
    faults = ["503", "cut", "reset"]

    def chosen(seed: int, order: list[str]) -> dict[str, str]:
        with FaultServer({"data": DATA}, faults, share=0.5, seed=seed) as server:
            return {asked: server.choose("data", asked)[0] for asked in order}

    first = chosen(1, names)
    assert first == chosen(1, names[::-1]) != chosen(2, names)
    assert 60 < sum(map(bool, first.values())) < 140 and set(first.values()) == {"", *faults}
    with FaultServer({"data": DATA}, faults, times=PERMANENT) as server:
        assert all(server.choose("data", "x")[0] for _ in itertools.repeat(None, 20))
