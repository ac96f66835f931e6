"""The world of a run, as torchrun describes it."""

import pytest

from ocrdata.errors import UsageError
from ocrdata.planning.ranks import rank_rows
from ocrtrain.settings.world import World, world_of

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip


def test_without_torchrun_the_world_is_this_process() -> None:
    world = world_of({"PATH": "/bin", "MASTER_PORT": "1"})
    assert world == World() and world.is_first and not world.is_distributed
    assert world.rows(7) == range(7)
    assert world.exchange(b"x") == [b"x"]
    assert world.exchange_json({"a": 1}) == [{"a": 1}]
    assert world.any(True) and not world.any(False)


def test_torchrun_says_which_rank_this_is() -> None:
    world = world_of(TORCHRUN)
    assert (world.rank, world.size, world.local_rank, world.restarts) == (5, 8, 1, 2)
    assert world.is_distributed and not world.is_first
    assert world.rows(16) == range(10, 12)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_half_an_environment_is_refused_not_trained_alone(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} missing.*torchrun"):
        world_of({k: v for k, v in TORCHRUN.items() if k != name})


@pytest.mark.parametrize(
    "change",
    [{"RANK": "8"}, {"RANK": "-1"}, {"RANK": "x"}, {"WORLD_SIZE": ""}, {"LOCAL_RANK": "-1"}],
)
def test_impossible_values_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="environment: RANK"):
        world_of(TORCHRUN | change)


@pytest.mark.parametrize("batch", [1, 4, 12])
def test_the_ranks_share_the_rows_of_a_batch(batch: int) -> None:
    for size in range(1, batch + 1):
        if batch % size == 0:
            parts = [World(rank, size).rows(batch) for rank in range(size)]
            assert [row for part in parts for row in part] == list(range(batch))
            assert {len(part) for part in parts} == {batch // size}


def test_a_batch_that_does_not_divide_is_refused_with_what_would() -> None:
    with pytest.raises(UsageError, match=r"--batch 10: .*\b4 ranks.*--batch 8 or 12"):
        rank_rows(10, 0, 4)
    with pytest.raises(UsageError, match=r"--batch 2: .*\b4 ranks.*--batch 4,"):
        rank_rows(2, 0, 4)
