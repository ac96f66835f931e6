"""Views of chosen samples, compared with lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.reading.selection import SelectedShards
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import from_turns
from ocrdata.shards.writer import ShardWriter

COUNT = 23


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("set")
    for number in range(3):
        with ShardWriter(folder / f"x-{number:03d}.tar") as writer:
            for at in range(10 * number, min(10 * number + 10, COUNT)):
                writer.write(f"{at:09d}", from_turns([("q", str(at))], [], source="", meta={}))
    return open_shards(str(folder / "x-*.tar"))


bounds = st.one_of(st.none(), st.integers(-30, 30))


@given(
    base=st.builds(slice, bounds, bounds, st.sampled_from([1, 2, -1, -3])),
    picks=st.lists(st.booleans(), min_size=COUNT, max_size=COUNT),
    part=st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2])),
)
@settings(max_examples=60, deadline=None)
def test_a_selection_is_a_list_of_samples(
    shards: Shards, base: slice, picks: list[bool], part: slice
) -> None:
    view = shards[base]
    chosen = [at for at in range(len(view)) if picks[at]]
    wanted = [list(range(COUNT))[base][at] for at in chosen][part]
    found = SelectedShards(view, np.array(chosen, np.int64), "chosen")[part]
    assert len(found) == len(wanted)
    assert [found.ref(at).position for at in range(len(found))] == wanted
    assert [sample.to_json() for sample in found] == [shards[at].to_json() for at in wanted]
    assert [dict(one) for one in found.iter_members()] == [shards.members(at) for at in wanted]
    assert [{k: bytes(v) for k, v in one.items()} for one in found.iter_views()] == [
        shards.members(at) for at in wanted
    ]
    placed = {}
    for first, number, locals_ in found.stretches():
        for offset, local in enumerate(locals_):
            placed[first + offset] = shards.shard_set.starts[number] + int(local)
    assert placed == dict(enumerate(wanted))
    for key in range(COUNT):
        if key in wanted:
            assert found.by_key(f"{key:09d}").to_json() == shards[key].to_json()
        else:
            with pytest.raises(UsageError, match=f"{key:09d}"):
                found.by_key(f"{key:09d}")


def test_the_digest_identifies_samples_and_order(shards: Shards) -> None:
    def digest(view: Shards, chosen: list[int]) -> str:
        return SelectedShards(view, np.array(chosen), "").digest

    digests = [digest(shards, [1, 2]), digest(shards, [1, 3]), digest(shards, [1]),
               digest(shards[::-1], [1, 2]), shards[1:3].digest]  # fmt: skip
    assert len(set(digests)) == 5
    assert digest(shards, [1, 2]) == SelectedShards(shards, [0, 1, 2], "other")[1:].digest


def test_a_selection_describes_itself_and_refuses_what_it_cannot_do(shards: Shards) -> None:
    found = SelectedShards(shards, np.array([3, 5]), "with images")
    assert "2 of 23 samples, with images" in found.spec and found.spec.startswith(shards.spec)
    with pytest.raises(IndexError, match="2 is out of range of 2 samples"):
        found[2]
    with pytest.raises(ValueError, match="reversed"):
        found[::-1]
