"""Shards at a URL: the same samples as from a local disk, with few requests."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, SpecError, TransportError, UsageError
from ocrdata.reading.texts import texts_of
from ocrdata.reading.view import Shards, open_shards
from ocrdata.storage import fetching
from ocrdata.storage.location import Location
from tests.support.far import Asked, FarFolder, Reply
from tests.support.rows import flip, write_set

COUNTS = (5, 0, 9, 1, 30)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    # No second requests, of which a busy machine sends more.
    monkeypatch.setattr(fetching, "FIRST_PATIENCE_S", 60)
    monkeypatch.setattr(fetching, "LEAST_PATIENCE_S", 60)


@pytest.fixture(params=[".tar", ".tar.zst"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shards = tmp_path / "shards"
    shards.mkdir()
    write_set(shards, "n", COUNTS, ("PNG", "JPEG"), request.param)
    return shards


def requests(far: FarFolder) -> Counter[str]:
    return Counter(path.partition(".")[2] for path in far.paths)


def test_equal_to_local_shards(folder: Path) -> None:
    near = open_shards(folder / "n.json")
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json")
        assert len(there) == len(near) == 45 and there.digest == near.digest
        assert list(there.iter_members()) == list(near.iter_members())
        assert [there[at] for at in range(45)] == list(near)
        assert all(there.ref(at).digest == near.ref(at).digest for at in range(45))
        assert there.by_key("000000013") == near.by_key("000000013")
        assert [bytes(m["000000044.png"]) for m in there[44:].iter_views()] == [
            bytes(m["000000044.png"]) for m in near[44:].iter_views()
        ]


@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    start=st.integers(-50, 50),
    stop=st.integers(-50, 50),
    step=st.sampled_from([1, 1, 2, 7, -1, -3]),
)
def test_slices(folder: Path, start: int, stop: int, step: int) -> None:
    near: Shards = open_shards(folder / "n.json")[start:stop:step]
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json[{start}:{stop}:{step}]")
        assert list(there.iter_members()) == list(near.iter_members())
        assert there.digest == near.digest


def test_a_reader_that_stops_in_the_middle_leaves_nothing_behind(folder: Path) -> None:
    with FarFolder(folder) as far:
        before = fetching.fetcher().held
        reader = open_shards(f"{far.url}/n.json").iter_members()
        next(reader)
        reader.close()  # type: ignore[attr-defined]
        assert fetching.fetcher().held == before


def test_nothing_is_asked_that_is_not_needed(folder: Path) -> None:
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json")
        assert far.paths == ["/n.json"]
        there.members(14)
        kind = next(one.suffix for one in map(Path, far.paths) if "003" in one.name)
        assert kind == ".parquet" and len(far.paths) == 3  # manifest, index, the sample's range
        there.members(14)
        again = open_shards(f"{far.url}/n.json")  # the index is in the cache folder now
        again.members(14)
        assert requests(far)["index.parquet"] == 1
        list(again.iter_members())
        assert requests(far)["index.parquet"] == 4  # of the shards with samples, each once


def test_a_shard_or_a_range_is_looked_up_in_the_manifest(folder: Path) -> None:
    ending = next(folder.glob("n-000.tar*")).name.removeprefix("n-000")
    near = open_shards(folder / "n.json")
    with FarFolder(folder) as far:
        part = open_shards(f"{far.url}/n-<000..002>{ending}[6:]")
        assert list(part.iter_members()) == list(near[6:14].iter_members())
        assert part.spec == f"{far.url}/n-<000..002>{ending}[6:14]"
        several = [f"{far.url}/n-003{ending}", f"{far.url}/n-004{ending}"]
        assert len(open_shards(several)) == 31
        with pytest.raises(SpecError, match=rf"2 of 4 shards .*n\.json.* 5: n-005{ending}, n-006"):
            open_shards(f"{far.url}/n-<003..006>{ending}")
        with pytest.raises(TransportError, match=r"m\.json: does not exist, the manifest of m-000"):
            open_shards(f"{far.url}/m-000{ending}")


def test_secrets_of_a_url_are_in_no_spec_and_no_error(folder: Path) -> None:
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json?key=secret")
        assert there.spec == f"{far.url}/n.json" and len(list(there.iter_members())) == 45
        for path in folder.glob("n-004.tar*"):
            path.unlink()
        with pytest.raises(TransportError) as caught:
            open_shards(f"{far.url}/n.json?key=secret")[44]
        assert "n-004" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("way", ["in order", "backwards", "here and there", "texts"])
def test_nothing_is_held_for_a_reader_that_stops(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_fetcher", fetching.Fetcher())
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json")
        for _ in range(2):
            reader = {
                "in order": there.iter_members(),
                "backwards": there[::-1].iter_members(),
                "here and there": there.shard_set.each_members([(4, 3), (0, 1), (2, 5), (4, 29)]),
                "texts": texts_of(there.shard_set, 4, [7, 3, 19]),
            }[way]
            next(reader)
            del reader
            assert fetching.fetcher().held == 0


def test_nothing_is_held_for_what_is_cached_already(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_fetcher", fetching.Fetcher())
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json")
        for _ in range(2):  # the second time, frames come from memory
            assert len(list(there.iter_members())) == 45 and fetching.fetcher().held == 0


def test_a_forked_process_says_that_it_cannot_read(folder: Path) -> None:
    """It would wait for threads that it does not have."""
    with FarFolder(folder) as far:
        there = open_shards(f"{far.url}/n.json")
        reader = there.iter_members()
        next(reader)
        with fetching.fetcher()._changed:  # held for ever in the child
            child = os.fork()
            if not child:
                try:
                    there.members(44)
                except UsageError as exc:
                    os._exit(3 if "spawn" in str(exc) else 1)
                finally:
                    os._exit(2)
        ended = threading.Event()
        timer = threading.Timer(30, lambda: ended.is_set() or os.kill(child, signal.SIGKILL))
        timer.start()
        status = os.waitpid(child, 0)[1]
        ended.set()
        timer.cancel()
        assert os.waitstatus_to_exitcode(status) == 3
        assert len(there.members(44)) == 3


def wrong_bytes(number: int) -> Reply:
    """Other bytes under right headers."""
    return Reply(body=bytes(number))


@pytest.mark.parametrize("times", [1, 2])
def test_wrong_bytes_under_right_headers_are_read_once_more(folder: Path, times: int) -> None:
    near = open_shards(folder / "n.json")
    left = [0]

    def answer(asked: Asked) -> Reply | None:
        if left[0] and asked.range is not None and ".tar" in asked.path:
            left[0] -= 1
            return wrong_bytes(asked.range[1] - asked.range[0])
        return None

    with FarFolder(folder, answer) as far:
        there = open_shards(f"{far.url}/n.json")
        there.ref(20)
        left[0] = times
        if times == 1:
            assert there.members(20) == near.members(20)
            left[0] = 1
            assert list(there.iter_members()) == list(near.iter_members())
        else:
            with pytest.raises(DigestError, match=r"n-004\.tar"):
                there.members(20)


def test_damage_at_the_far_place_names_the_sample(tmp_path: Path) -> None:
    write_set(tmp_path, "n", COUNTS)
    row = open_shards(tmp_path / "n.json").row(20)
    flip(tmp_path / "n-004.tar", row.members[1].offset + 3)
    with FarFolder(tmp_path) as far:
        there = open_shards(f"{far.url}/n.json")
        for read in (lambda: there.members(20), lambda: list(there.iter_members())):
            with pytest.raises(DigestError) as caught:
                read()
            assert (caught.value.key, caught.value.member) == ("000000020", "000000020.png")
        assert len(list(there[:20].iter_members())) == 20


def test_an_index_that_is_not_the_manifests(tmp_path: Path) -> None:
    write_set(tmp_path, "n", COUNTS)
    (tmp_path / "n-002.index.parquet").write_bytes((tmp_path / "n-004.index.parquet").read_bytes())
    with FarFolder(tmp_path) as far:
        there = open_shards(f"{far.url}/n.json")
        with pytest.raises(DigestError, match=r"n-002\.index\.parquet: .*manifest"):
            there.ref(6)
        assert there.ref(20).key == "000000020"


def test_a_shard_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, "n", COUNTS)
    with FarFolder(tmp_path) as far:
        there = open_shards(f"{far.url}/n.json")
        there.members(20)
        (tmp_path / "n-004.tar").write_bytes(bytes((tmp_path / "n-004.tar").stat().st_size))
        with pytest.raises(TransportError, match=r"n-004\.tar: .*replaced"):
            there.members(21)


@pytest.mark.parametrize("times", [1, 2])
def test_a_manifest_of_wrong_bytes_is_read_once_more(tmp_path: Path, times: int) -> None:
    write_set(tmp_path, "n", COUNTS)
    wrong = (tmp_path / "n.json").read_bytes().replace(b"totals", b"tota1s")

    def answer(asked: Asked) -> Reply | None:
        return Reply(body=wrong) if asked.number < times else None

    with FarFolder(tmp_path, answer) as far:
        if times == 1:
            assert len(open_shards(f"{far.url}/n.json")) == 45
        else:
            with pytest.raises(ShardError, match=r"n\.json: "):
                open_shards(f"{far.url}/n.json")


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text("[]")
    with FarFolder(tmp_path) as far, pytest.raises(ShardError, match=r"n\.json: "):
        open_shards(f"{far.url}/n.json")
    assert Location(far.url).scheme == "http"
