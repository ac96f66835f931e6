"""Reading objects at URLs: the exact bytes of one version, whatever the server does."""

import os
import random
import re
from pathlib import Path

import pytest

from ocrdata.errors import TransportError, TruncatedError, UsageError
from ocrdata.storage import retries
from ocrdata.storage.location import Location
from ocrdata.storage.remote import RemoteFile, fetch, names_in, status
from tests.support.far import Asked, FarFolder, Reply
from tests.support.servers.s3 import S3Server

DATA = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "x.tar").write_bytes(DATA)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retries, "LONGEST_WAIT_S", 0.01)
    return tmp_path


def at(far: FarFolder, name: str = "x.tar") -> Location:
    return Location(f"{far.url}/{name}")


def test_ranges_and_whole_objects(folder: Path) -> None:
    with FarFolder(folder) as far:
        whole = fetch(at(far))
        assert whole.data == DATA and whole.size == len(DATA)
        for start, stop in ((0, 1), (5, 2_900_000), (len(DATA) - 7, len(DATA))):
            part = fetch(at(far), start, stop, whole.version)
            assert part.data == DATA[start:stop] and part[1:] == whole[1:]
        assert status(at(far)) == (len(DATA), whole.version) and status(at(far, "y.tar")) is None


def test_a_file_reads_ranges_in_one_request(folder: Path) -> None:
    with FarFolder(folder) as far:
        file = RemoteFile(at(far), len(DATA))
        ranges = [(100, 50), (10, 20), (400, 0)]
        assert file.read_ranges(ranges) == [DATA[a : a + n] for a, n in ranges]
        view = bytearray(9)
        file.read_into(1000, memoryview(view))
        assert view == DATA[1000:1009] and file.read(7, 0) == b""
        assert [asked.range for asked in far.asked] == [(10, 400), (1000, 1009)]
        assert (
            far.asked[1].headers["if-match"] == file.version
        )  # the version read first is asked for


@pytest.mark.parametrize("cut", [0, 1, 1_500_000, 2_999_999])
def test_a_cut_connection_goes_on_where_it_ended(folder: Path, cut: int) -> None:
    with FarFolder(folder, lambda asked: Reply(cut=cut) if asked.number == 0 else None) as far:
        assert fetch(at(far), 0, len(DATA)).data == DATA
    again = far.asked[1].range
    assert len(far.asked) == 2 and again is not None and again[0] <= cut
    assert again[0] >= cut - (1 << 21)  # what came is kept, in pieces


WRONG = [
    Reply(status=500),
    Reply(status=503),
    Reply(status=429),
    Reply(status=200),
    Reply(headers={"Content-Range": "bytes 7-106/3000000"}),
    Reply(headers={"Content-Length": "100"}, body=b"short", cut=5),
]


@pytest.mark.parametrize("reply", WRONG)
def test_a_wrong_answer_is_asked_again(folder: Path, reply: Reply) -> None:
    with FarFolder(folder, lambda asked: reply if asked.number == 0 else None) as far:
        assert fetch(at(far), 0, 100).data == DATA[:100]


@pytest.mark.parametrize("reply", WRONG)
def test_wrong_answers_without_end(
    folder: Path, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.3)
    with FarFolder(folder, lambda _: reply) as far, pytest.raises(TransportError) as caught:
        fetch(at(far), 0, 100)
    assert re.match(rf"{far.url}/x\.tar: .*tried for \d+ s\n", str(caught.value))
    assert "run the same command again" in caught.value.remedy


@pytest.mark.parametrize(
    "reply, said",
    [
        (Reply(status=404), "does not exist"),
        (Reply(status=403), "403.*AWS_.*HF_TOKEN"),
        (Reply(status=401), "401.*AWS_.*HF_TOKEN"),
        (Reply(status=412), "replaced"),
        (Reply(status=400), "400"),
        (Reply(status=416), "shorter"),
    ],
)
def test_what_a_later_try_cannot_mend_is_an_error_at_once(
    folder: Path, reply: Reply, said: str
) -> None:
    with FarFolder(folder, lambda _: reply) as far:
        place = Location(f"{far.url}/x.tar?signature=secret")
        with pytest.raises(TransportError) as caught:
            fetch(place, 0, 100)
    assert re.search(said, str(caught.value), re.DOTALL)
    assert len(far.asked) == 1 and "secret" not in str(caught.value)


def test_an_object_that_is_replaced(folder: Path) -> None:
    ignored = {"number": -1}

    def ignore_condition(asked: Asked) -> Reply | None:
        if asked.number != ignored["number"]:
            return None
        # What a server that knows no If-Match would answer.
        data = (folder / "x.tar").read_bytes()
        headers = {"Content-Range": f"bytes 0-9/{len(data)}", "ETag": '"other"',
                   "Content-Length": "10"}  # fmt: skip
        return Reply(206, headers, data[:10])

    with FarFolder(folder, ignore_condition) as far:
        file = RemoteFile(at(far), len(DATA))
        file.read(0, 10)
        (folder / "x.tar").write_bytes(DATA[::-1])
        os.utime(folder / "x.tar", ns=(1, 1))
        for number in (-1, len(far.asked) + 1):  # a server that keeps the condition, and another
            ignored["number"] = number
            with pytest.raises(TransportError, match=r"x\.tar: .*replaced"):
                file.read(0, 10)


def test_a_shorter_object_than_its_set_says(folder: Path) -> None:
    with FarFolder(folder) as far:
        with pytest.raises(TruncatedError, match="3,000,000, but 3,000,001"):
            fetch(at(far), 10, len(DATA) + 1)
        with pytest.raises(TruncatedError, match="3,000,000, but 3,000,001"):
            RemoteFile(at(far), len(DATA)).read(2_999_999, 2)
        with pytest.raises(TransportError, match="replaced"):
            RemoteFile(at(far), len(DATA) + 5).read(0, 2)
        with pytest.raises(TransportError, match=r"y\.tar: does not exist"):
            RemoteFile(at(far, "y.tar"))


def test_a_store_that_refuses_conditions_is_read_without(folder: Path) -> None:
    def refuse(asked: Asked) -> Reply | None:
        return Reply(status=501) if "if-match" in asked.headers else None

    with FarFolder(folder, refuse) as far:
        file = RemoteFile(at(far), len(DATA))
        assert [file.read(at, 5) for at in (0, 5, 10)] == [DATA[0:5], DATA[5:10], DATA[10:15]]
    assert sum("if-match" in asked.headers for asked in far.asked) == 1


def test_names_and_queries_arrive_as_they_are(folder: Path) -> None:
    (folder / "a b+c,1%.tar").write_bytes(b"content")
    with FarFolder(folder) as far:
        place = Location(f"{far.url}/a%20b%2Bc%2C1%25.tar?sig=a%2Fb&x=1")
        assert fetch(place, 1, 3).data == b"on"


def test_nobody_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.3)
    with FarFolder(folder) as far:
        place = at(far)
    with pytest.raises(TransportError, match=rf"^{far.url}/x\.tar: the server refuses connections"):
        fetch(place, 0, 1)


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(UsageError, match=r"ocr-shards\[remote\]"):
        fetch(Location("s3://bucket/x"), 0, 1)


@pytest.mark.parametrize("kind", ["moto", "nanio"])
def test_only_buckets_are_listed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    for name in ("b", "a", "inner/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folder = Location(server.put_folder(tmp_path, "listed"))
    assert names_in(folder) == ["a", "b"] and names_in(folder / "nothing") == []
    assert names_in(Location("https://host/listed")) is None
