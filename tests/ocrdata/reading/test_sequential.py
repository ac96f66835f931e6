"""Reading in order gives what reading one by one gives, for any buffer size; views stay valid."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, TruncatedError
from ocrdata.reading import sequential
from ocrdata.reading.sequential import CopyBuffer, SequentialReader, ViewBuffer
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.output import ZstdOptions
from tests.support.compressed import write_chats
from tests.support.rows import flip, sample, write_set, write_shard

COUNTS = (5, 0, 7, 1)
TOTAL = sum(COUNTS)
KINDS = ("PNG", "JPEG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of plain shards, and one compressed shard."""
    path = tmp_path_factory.mktemp("shards")
    write_set(path, "x", COUNTS, KINDS)
    write_chats(path / "z-000.tar.zst", 40, ZstdOptions(3000, 3))
    return path


def plain(views: dict[str, memoryview]) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in views.items()}


@pytest.mark.parametrize("buffer", [2, 512, 4096, 9000, 1 << 20])
@pytest.mark.parametrize("spec", ["x.json", "z-000.tar.zst"])
def test_any_buffer_size_gives_the_same_members(
    folder: Path, buffer: int, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "READ_BYTES", buffer)
    shards = open_shards(str(folder / spec))
    for view in (shards, shards[3:9], shards[::-2], shards[5:5]):
        expected = [view.members(at) for at in range(len(view))]
        assert list(view.iter_members()) == expected
        assert [plain(views) for views in view.iter_views()] == expected


def test_batches_give_the_positions_of_their_samples(folder: Path) -> None:
    shards = open_shards(str(folder / "x.json"))
    found = []
    reader = SequentialReader(shards._set, CopyBuffer())
    for number, samples, batch in reader.batches(range(1, TOTAL)):
        for local, members in zip(samples, batch, strict=True):
            assert members == shards._set.members(number, local)
            found.append((number, local))
    assert found == [shards._set.locate(position) for position in range(1, TOTAL)]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([700, 2000, 1 << 20]),
    st.lists(st.integers(0, 6), min_size=TOTAL, max_size=TOTAL),
    st.booleans(),
)
def test_views_stay_valid_while_they_are_held(
    folder: Path, buffer: int, kept_for: list[int], compressed: bool
) -> None:
    """Each sample's views are dropped after `kept_for` further samples, or never if that is 6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "READ_BYTES", buffer)
        shards = open_shards(str(folder / ("z-000.tar.zst" if compressed else "x.json")))[:TOTAL]
        held: list[tuple[int, int, dict[str, memoryview]]] = []
        for at, views in enumerate(shards.iter_views()):
            until = at + kept_for[at] if kept_for[at] < 6 else TOTAL
            held = [*(one for one in held if one[0] >= at), (until, at, views)]
            for _, number, known in held:
                assert plain(known) == shards.members(number)
        for _, number, known in held:
            assert plain(known) == shards.members(number)


def test_views_are_read_only(folder: Path) -> None:
    for spec in ("x.json", "z-000.tar.zst"):
        for views in open_shards(str(folder / spec)).iter_views():
            assert all(view.readonly for view in views.values())


def test_two_buffers_suffice_if_views_are_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "READ_BYTES", 5000)  # one sample
    shards = open_shards(str(folder / "x.json"))

    def addresses(held: list[dict[str, memoryview]] | None) -> set[int]:
        reader = SequentialReader(shards._set, ViewBuffer())
        seen: dict[int, bytearray] = {}
        for _, _, batch in reader.batches(range(TOTAL)):
            for views in batch:
                if held is not None:
                    held.append(views)
                for view in views.values():
                    assert isinstance(view.obj, bytearray)
                    seen[id(view.obj)] = view.obj
                del views
        return set(seen)

    assert len(addresses(None)) == 2
    assert len(addresses([])) > 5


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Path]:
    write_shard(tmp_path / "x-000.tar", [sample(number) for number in range(20)])
    index = read_index(index_path(tmp_path / "x-000.tar"))
    flip(tmp_path / "x-000.tar", index.member_offsets[2 * 13 + 1] + 5)
    yield tmp_path / "x-000.tar"


def taken(shards: Shards, views: bool) -> int:
    """How many samples are read before an error, which must name the next one."""
    count = 0
    try:
        for _ in shards.iter_views() if views else shards.iter_members():
            count += 1
    except DigestError as exc:
        assert exc.key == f"{count:09d}"
    return count


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("buffer", [1500, 1 << 20])
def test_corruption_is_raised_at_its_sample(
    damaged: Path, views: bool, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "READ_BYTES", buffer)
    assert taken(open_shards(str(damaged)), views) == 13
    assert taken(open_shards(str(damaged), verify=False), views) == 20


def test_file_that_shrinks(damaged: Path) -> None:
    shards = open_shards(str(damaged))
    row = shards.row(6)
    shards[0]
    with damaged.open("r+b") as file:
        file.truncate(row.offset + 600)
    seen = 0
    with pytest.raises(TruncatedError, match="sample 000000006"):
        for _ in shards.iter_views():
            seen += 1
    assert seen == 6


def test_samples_larger_than_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "READ_BYTES", 3000)
    pick = random.Random(1)
    rows = [sample(n, KINDS * pick.randrange(4)) for n in range(30)]
    write_shard(tmp_path / "x-000.tar", rows)
    shards = open_shards(str(tmp_path))
    sizes = [shards.row(at).size for at in range(30)]
    assert min(sizes) < 3000 < max(sizes)
    assert list(shards) == rows
    assert [plain(views) for views in shards.iter_views()] == list(shards.iter_members())
