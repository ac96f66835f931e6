"""Reading from servers with faults, a hundred of each: faults that pass end in the exact bytes,
within twice the requests that no faults take; faults that stay end in one message within a minute;
no wrong byte is served, and no secret is told."""

from __future__ import annotations

import logging
import random
import re
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from huggingface_hub import constants

from ocrdata.errors import OcrError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.storage import hub_urls, stores
from tests.support.hub import Hub
from tests.support.results import record
from tests.support.rows import write_set
from tests.support.servers.faulty import PERMANENT, FaultServer
from tests.support.servers.s3 import S3Server

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1800)]

WANTED = 100
COUNTS = (50, 50, 50, 50)
SECRET = "s3cr3t"
QUERY = f"?X-Amz-Signature={SECRET}&token={SECRET}"
SECONDS = 60.0

PASSING = (
    "wrong range", "lying range", "whole file", "short range", "cut", "reset", "reset at once",
    "other bytes", "429", "429 with Retry-After", "500", "500 with Retry-After", "503",
    "503 with Retry-After", "silence", "drip", "redirect loop",
)  # fmt: skip
AT_ONCE = ("401", "403", "404", "changed", "replaced")
"""Faults of which no later attempt could be without: errors at once, not after a while."""

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("set")
    write_set(made, "n", COUNTS, ("PNG", "JPEG"))
    return made


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def near(folder: Path) -> list[Members]:
    return list(open_shards(folder / "n.json").iter_members())


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Use an empty cache folder from now on."""
    numbers = iter(range(1 << 20))

    def use() -> None:
        monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / f"cache-{next(numbers)}"))

    return use


@pytest.fixture(autouse=True)
def nothing_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No secret is logged."""
    caplog.set_level(logging.INFO)
    yield
    assert SECRET not in caplog.text


def told(exc: BaseException) -> str:
    """The message of an error, which must name no secret, not even in its traceback."""
    assert SECRET not in "".join(traceback.format_exception(exc))
    text = str(exc)
    assert SECRET not in repr(exc)
    lines = text.splitlines()
    assert len(lines) <= 2, text  # what and where, and the remedy
    return text


def read(there: Shards, near: list[Members], seed: int) -> None:
    """Read single samples at random in eight threads, and all in order; compare every byte."""
    places = random.Random(seed).sample(range(len(near)), 60)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(there.members, places)) == [near[at] for at in places]
    assert list(there.iter_members()) == near


@pytest.mark.parametrize("fault", PASSING)
def test_faults_that_pass(
    fault: str, files: dict[str, bytes], near: list[Members], fresh: Callable[[], None]
) -> None:
    def run(faults: tuple[str, ...], seed: int) -> list[str]:
        """The fault of every request."""
        fresh()
        with FaultServer(files, faults, share=0.5, seed=seed) as server:
            read(open_shards(f"{server.url}/n.json{QUERY}"), near, seed)
            return [request.fault for request in server.requests]

    without = max(len(run((), seed)) for seed in range(3))
    seen, requests, most = 0, 0, 0
    began, seed = time.monotonic(), 0
    while seen < WANTED:
        found = run((fault,), seed)
        seen, requests, most = (
            seen + found.count(fault),
            requests + len(found),
            max(most, len(found)),
        )
        seed += 1
    record(
        "afar-faults",
        f"{fault}, {seen} times in {seed} runs, {time.monotonic() - began:.0f} s: all bytes exact; "
        f"{requests:,} requests, at most {most} a run, {without} without faults",
    )
    assert most <= 2 * without


@dataclass
class Ending:
    text: str
    seconds: float


def ending(action: Callable[[], object]) -> Ending:
    """The error of an action that must fail."""
    began = time.monotonic()
    with pytest.raises(OcrError) as caught:
        action()
    return Ending(told(caught.value), time.monotonic() - began)


def check(name: str, endings: list[Ending], facts: tuple[str, ...], most: float = SECONDS) -> None:
    slowest = max(ending.seconds for ending in endings)
    numbers = re.compile(r"\d+(?= s\b)|(?<=byte )[\d,]+")
    first = [one.text.partition("\n")[0].rpartition(": ")[2] for one in endings]
    texts = Counter(numbers.sub("N", text) for text in first)
    record(
        "afar-faults",
        f"{name}, {len(endings)} times, for ever: {dict(texts)} within {slowest:.0f} s",
    )
    assert len(endings) == WANTED and slowest < most
    for one in endings:
        assert all(fact in one.text for fact in facts), one.text
        assert len(one.text.splitlines()) == 2, f"no remedy: {one.text}"


@pytest.mark.parametrize("fault", [*PASSING, *AT_ONCE])
def test_faults_that_stay(
    fault: str,
    files: dict[str, bytes],
    fresh: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fresh()
    with FaultServer(files, times=PERMANENT, where=".tar") as server:
        there = open_shards(f"{server.url}/n.json{QUERY}")
        for shard in range(len(COUNTS)):
            there.members(50 * shard)  # from here on, versions are known
        server.faults = (fault,)
        places = [at for at in range(len(there)) if at % 50][:WANTED]
        with ThreadPoolExecutor(WANTED) as threads:
            endings = list(threads.map(lambda at: ending(lambda: there.members(at)), places))
        server.faults = ()
        assert there.members(199)["000000199.json"], "the fault was not for ever"
    most = 5.0 if fault in (*AT_ONCE, "other bytes") else SECONDS
    check(fault, endings, (f"{server.url}/n-0", ".tar"), most)
    waited = [one for one in caplog.records if one.name.startswith("ocrdata")]
    assert bool(waited) == (max(one.seconds for one in endings) > 10), "it says that it waits"
    assert all(".tar" in one.getMessage() for one in waited)


def test_no_such_host_and_no_server(fresh: Callable[[], None]) -> None:
    fresh()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for name, url in (
        ("DNS failure", "https://none.invalid"),
        ("refused", f"http://127.0.0.1:{port}"),
    ):
        with ThreadPoolExecutor(WANTED) as threads:
            places = [f"{url}/{number}.json{QUERY}" for number in range(WANTED)]
            endings = list(threads.map(lambda at: ending(lambda: open_shards(at)), places))
        check(name, endings, (url, ".json"))


NAME = "org/set"


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Hub], str]]:
    """Point the hub's client at a hub; returns the spec of the set there."""

    def use(hub: Hub) -> str:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        hub_urls.forget_all()
        return f"hf://datasets/{NAME}/data/n.json"

    yield use
    hub_urls.forget_all()


def in_repository(files: Mapping[str, bytes]) -> dict[str, Mapping[str, bytes]]:
    return {NAME: {f"data/{name}": data for name, data in files.items()}}


@pytest.mark.parametrize("form", ["amazon", "cloudfront"])
def test_urls_that_expire(
    form: str,
    files: dict[str, bytes],
    near: list[Members],
    fresh: Callable[[], None],
    hub_client: Callable[[Hub], str],
) -> None:
    fresh()
    with Hub(in_repository(files), elsewhere=True, link_form=form, token=SECRET) as hub:
        there = open_shards(hub_client(hub))
        places = random.Random(1).choices(range(len(near)), k=WANTED)
        for at in places:
            hub.file_host.expire_links()
            assert there.members(at) == near[at]
        served = hub.file_host.served
        assert served.authorization == {""} != hub.served.authorization  # to the hub alone
        assert served.requests <= 2 * (WANTED + 2 * len(COUNTS))
    record(
        "afar-faults",
        f"URL of the file host ({form}) expired, {WANTED} times: all bytes exact, "
        f"{served.requests} requests to the file host, {hub.served.requests} to the hub",
    )


def test_a_busy_hub_and_a_busy_file_host(
    files: dict[str, bytes],
    near: list[Members],
    fresh: Callable[[], None],
    hub_client: Callable[[Hub], str],
) -> None:
    began = time.monotonic()
    with Hub(in_repository(files), elsewhere=True, token=SECRET) as hub:
        spec = hub_client(hub)
        for number in range(WANTED // 4):
            fresh()
            hub_urls.forget_all()
            hub.refuse_next(2, 429, "1" if number % 2 else "")
            there = open_shards(spec)
            hub.file_host.refuse_next(2, 429, "1" if number % 2 else "")
            at = number * 7 % len(near)
            assert there.members(at) == near[at]
    seconds = time.monotonic() - began
    record("afar-faults", f"429 of hub and file host, {WANTED} in all: exact, {seconds:.0f} s")


def test_urls_that_are_refused_for_ever(
    files: dict[str, bytes], fresh: Callable[[], None], hub_client: Callable[[Hub], str]
) -> None:
    with Hub(in_repository(files), elsewhere=True, token=SECRET) as hub:
        spec = hub_client(hub)
        fresh()
        there = open_shards(spec)
        for shard in range(len(COUNTS)):
            there.ref(50 * shard)  # the indexes are known
        hub.file_host.seconds = 0
        hub.file_host.expire_links()
        endings = [ending(lambda at=at: there.members(at)) for at in range(WANTED)]
        check("URL of the file host refused", endings, ("data/n-0", "denied"), 5.0)


def test_credentials_of_the_hub(
    files: dict[str, bytes],
    fresh: Callable[[], None],
    hub_client: Callable[[Hub], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Hub(in_repository(files), elsewhere=True, token="another") as hub:
        spec = hub_client(hub)
        for name in ("expired", "missing"):
            if name == "missing":
                monkeypatch.delenv("HF_TOKEN")
            endings = []
            for _ in range(WANTED):
                fresh()
                hub_urls.forget_all()
                endings.append(ending(lambda: open_shards(spec)))
            slowest = max(one.seconds for one in endings)
            assert slowest < 5 and all("HF_TOKEN" in one.text for one in endings), endings[0]
            record(
                "afar-faults",
                f"token {name}, {WANTED} times: {endings[0].text!r} within {slowest:.1f} s",
            )


def forget_stores() -> None:
    stores._bucket.cache_clear()


def test_credentials_of_a_bucket(
    nanio: S3Server,
    folder: Path,
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = nanio.put_folder(folder, "faults")
    for name, value in nanio.variables.items():
        monkeypatch.setenv(name, value)
    endings = []
    for kind in ("wrong", "missing"):
        if kind == "wrong":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        else:
            for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
                monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        forget_stores()
        for _ in range(WANTED // 2):
            fresh()
            endings.append(ending(lambda: open_shards(f"{url}/n.json")))
    forget_stores()
    check("credentials of a bucket", endings, ("s3://shards/faults/n.json", "AWS_"), 10.0)


def test_an_object_that_is_replaced_in_a_bucket(
    moto: S3Server,
    nanio: S3Server,
    folder: Path,
    near: list[Members],
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a store that enforces If-Match, and by one that ignores it."""
    for server in (moto, nanio):
        url = server.put_folder(folder, "replaced")
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        forget_stores()
        endings = []
        original = (folder / "n-001.tar").read_bytes()
        for number in range(WANTED):
            if number % 10 == 0:
                fresh()
            obstore.put(server.store(), "replaced/n-001.tar", original)
            there = open_shards(f"{url}/n.json")
            assert there.members(60) == near[60]
            obstore.put(server.store(), "replaced/n-001.tar", original[::-1])
            endings.append(ending(lambda there=there: there.members(61)))
        check(
            f"object replaced in {server.bucket}", endings, ("replaced/n-001.tar", "replaced"), 5.0
        )
    forget_stores()
