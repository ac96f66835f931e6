"""Views of shards: slices like those of a list, every sample exact, every corrupted byte found."""

import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from ocrdata.errors import DigestError, ShardError, UsageError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.index import index_path, read_index, read_key_range
from ocrdata.shards.names import make_key
from tests.support.rows import flip, sample, write_set

COUNTS = (5, 0, 7, 1)
TOTAL = sum(COUNTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of 5, 0, 7 and 1 samples, with a manifest."""
    path = tmp_path_factory.mktemp("set")
    write_set(path, "x", COUNTS, ("PNG", "JPEG"))
    return path


@pytest.fixture(scope="module")
def shards(folder: Path) -> Shards:
    return open_shards(str(folder))


def numbers(view: Shards) -> list[int]:
    return [one.meta["number"] for one in view]


bounds = st.none() | st.integers(-TOTAL - 3, TOTAL + 3)
steps = st.none() | st.integers(-4, 4).filter(bool)
slices = st.builds(slice, bounds, bounds, steps)


@settings(deadline=None, max_examples=150)
@given(st.lists(slices, max_size=4))
def test_slices_equal_those_of_a_list(shards: Shards, taken: list[slice]) -> None:
    view, expected = shards, list(range(TOTAL))
    for one in taken:
        view, expected = view[one], expected[one]
    assert len(view) == len(expected)
    assert numbers(view) == expected
    assert [view[at].meta["number"] for at in range(len(view))] == expected
    assert [view[at].meta["number"] for at in range(-len(view), 0)] == expected
    assert [view.ref(at).position for at in range(len(view))] == expected
    assert [view.row(at).key for at in range(len(view))] == [make_key(n) for n in expected]
    for outside in (len(view), -len(view) - 1):
        with pytest.raises(IndexError, match="position"):
            view[outside]
    again = open_shards(view.spec)
    assert numbers(again) == expected
    assert again.digest == view.digest
    assert (again.spec == view.spec) and again.source_name == "x"


@settings(deadline=None)
@given(slices)
def test_slice_in_the_spec_equals_a_slice_of_the_view(shards: Shards, taken: slice) -> None:
    parts = ["" if bound is None else str(bound) for bound in (taken.start, taken.stop)]
    parts += [] if taken.step is None else [str(taken.step)]
    assert numbers(open_shards(f"{shards.spec}[{':'.join(parts)}]")) == numbers(shards[taken])


def test_samples_are_complete(shards: Shards) -> None:
    for number, one in enumerate(shards):
        assert one == sample(number, ("PNG", "JPEG")) == one
        key = make_key(number)
        members = shards.members(number)
        assert list(members) == [f"{key}.json", f"{key}.png", f"{key}.1.jpg"]
        assert list(members.values()) == [one.to_json(), *one.images]
    assert list(shards.iter_members()) == [shards.members(at) for at in range(TOTAL)]


def test_by_key(shards: Shards) -> None:
    view = shards[2:9:3]
    assert view.by_key(make_key(5)) == sample(5, ("PNG", "JPEG"))
    for key in (make_key(6), make_key(100), "", "zzz"):
        with pytest.raises(UsageError, match=f"key {key!r}"):
            view.by_key(key)
    with pytest.raises(UsageError, match=f"key '5'; .*{make_key(5)!r}"):
        view.by_key("5")
    with pytest.raises(UsageError) as caught:
        view.by_key("6")  # in the set, not in the view
    assert make_key(6) not in str(caught.value)


def test_key_is_found_despite_a_corrupted_footer(tmp_path: Path) -> None:
    """No digest covers the key ranges in a Parquet footer, so they must not be trusted."""
    write_set(tmp_path, "x", [3, 3])
    key, harmless, refused = make_key(0).encode(), 0, 0
    path = next(tmp_path.glob("x-000.index.parquet"))
    whole = path.read_bytes()
    for at in range(len(whole)):
        if whole.startswith(key, at):
            path.write_bytes(whole[:at] + b"9" + whole[at + 1 :])
            try:
                ranges = read_key_range(path)
                opened = open_shards(str(tmp_path / "x-*.tar"))
                assert opened.by_key(make_key(0)) == sample(0)
            except ShardError:
                refused += 1
                continue
            harmless += 1
            assert ranges == (make_key(0), make_key(2))
    assert harmless, refused
    path.write_bytes(whole)


def test_refs_and_digests(shards: Shards, tmp_path: Path) -> None:
    ref = shards[4:].ref(1)
    assert (ref.shard, ref.key, ref.position) == ("x-002.tar", make_key(5), 5)
    digests = {shards.ref(at).digest for at in range(TOTAL)}
    assert len(digests) == TOTAL
    views = [
        shards, shards[1:], shards[:-1], shards[::-1], shards[::2], shards[:0], shards[3:4],
        shards[5:6], shards[5:12], shards[5:12][::-1], shards[:12:2],
    ]  # fmt: skip
    assert len({view.digest for view in views}) == len(views)
    # Only the samples count: neither their folder nor other shards.
    write_set(tmp_path, "other", COUNTS, ("PNG", "JPEG"))
    other = open_shards(str(tmp_path))
    assert other.digest == shards.digest
    assert open_shards(str(tmp_path / "other-002.tar"))[1:3].digest == shards[6:8].digest
    assert shards[6:6].digest == shards[2:1].digest


def test_image_digests_leave_out_other_members(folder: Path, tmp_path: Path) -> None:
    shards = open_shards(str(folder))
    members = shards.members(1)
    images = [data for name, data in members.items() if not name.endswith(".json")]
    assert shards.image_digests(1) == tuple(xxh3_128_digest(data) for data in images)
    (tmp_path / "a.png").write_bytes(images[0])
    (tmp_path / "a.txt").write_text("a caption that others have too")
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        for name in ("a.png", "a.txt"):
            tar.add(tmp_path / name, name)
    foreign = open_shards(str(tmp_path / "foreign.tar"))
    assert foreign.image_digests(0) == (xxh3_128_digest(images[0]),)


def test_views_are_equal_with_and_without_a_manifest(folder: Path, tmp_path: Path) -> None:
    shards = open_shards(str(folder))
    for path in folder.iterdir():
        if path.suffix != ".json":
            os.link(path, tmp_path / path.name)
    plain = open_shards(str(tmp_path))
    assert plain.digest == shards.digest
    assert list(plain) == list(shards)
    assert plain.source_name == "x"
    assert repr(plain) == f"<Shards {tmp_path}: 13 samples>"


def test_opening_a_set_reads_no_index_rows(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 3])
    index_path(tmp_path / "x-001.tar").path.write_bytes(b"damaged")
    shards = open_shards(str(tmp_path / "x.json"))
    assert len(shards) == 6
    assert numbers(shards[:3]) == [0, 1, 2]
    with pytest.raises(ShardError, match=r"x-001\.index\.parquet: "):
        shards[3]


def test_every_flipped_byte_of_a_payload_is_found(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [4], ("PNG", "GIF"))
    tar, rng = tmp_path / "x-000.tar", random.Random(3)
    index = read_index(index_path(tar))
    places = [
        (position, member, member.offset + at)
        for position in range(4)
        for member in index.members(position)
        for at in rng.sample(range(member.size), 5)
    ]
    for position, member, at in places:
        flip(tar, at, at % 8)
        shards = open_shards(str(tmp_path))
        for read in (shards.__getitem__, shards.members):
            with pytest.raises(DigestError) as caught:
                read(position)
            place, remedy, command = str(caught.value).split("\n")
            assert place.startswith(
                f"{tar}: sample {make_key(position)}: member {member.name}: checksum mismatch"
            )
            assert place.endswith(f" byte {member.offset:,}") and remedy.startswith("  ")
            assert command == f"  python tools/make_shards.py x --out {tmp_path} --only 0"
        seen = []
        with pytest.raises(DigestError) as caught:
            for one in shards:
                seen.append(one.meta["number"])
        assert (seen, caught.value.key) == (list(range(position)), make_key(position))
        others = [n for n in range(4) if n != position]
        assert [shards[n].meta["number"] for n in others] == others
        unverified = open_shards(str(tmp_path), verify=False)
        assert unverified.members(position)[member.name] != b""
        assert len(list(unverified.iter_members())) == 4
        flip(tar, at, at % 8)


def test_forked_process_can_go_on_reading(folder: Path) -> None:
    code = (
        "import os, sys\n"
        "from ocrdata.reading.view import open_shards\n"
        "shards = open_shards(sys.argv[1]); shards[0]\n"
        "child = os.fork()\n"
        "numbers = [one.meta['number'] for _ in range(20) for one in shards]\n"
        "assert numbers == list(range(13)) * 20\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True,
                   env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})  # fmt: skip


@given(
    start=st.none() | st.integers(-TOTAL - 2, TOTAL + 2),
    stop=st.none() | st.integers(-TOTAL - 2, TOTAL + 2),
    step=st.sampled_from([None, 1, 2, 3, 50, -1, -2, -50]),
)
def test_view_is_split_by_shard(
    folder: Path, start: int | None, stop: int | None, step: int | None
) -> None:
    view = open_shards(str(folder / "x.json"))[start:stop:step]
    wanted = [view.shard_set.locate(view.ref(at).position) for at in range(len(view))]
    found, seen = [], []
    for first, number, locals_ in view.stretches():
        assert first == len(found) and locals_
        seen.append(number)
        found += [(number, local) for local in locals_]
    assert found == wanted
    assert len(set(seen)) == len(seen)
