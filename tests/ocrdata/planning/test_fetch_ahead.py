"""Fetching ahead of a plan: each block once, in bounded memory, released when it is over."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest

from ocrdata.planning import fetch_ahead
from ocrdata.planning.blocks import BlockSize, blocks_of
from ocrdata.planning.fetch_ahead import FetchAhead, FetchCost, fetch_cost
from ocrdata.planning.order import BlockShuffle, FullShuffle
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
from ocrdata.reading.view import Shards, open_shards
from ocrdata.storage import fetching
from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.fetching import FETCH_BYTES, Fetcher, fetcher
from tests.support.far import FarFolder
from tests.support.rows import write_set

BLOCK = BlockSize(block=8, window=32)
BLOCKS = 5 + 3 + 8 + 2
"""Of the shards below."""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "indexes"))
    monkeypatch.setattr(fetching, "_fetcher", Fetcher())
    # No second requests, of which a busy machine sends more.
    monkeypatch.setattr(fetching, "FIRST_PATIENCE_S", 60)
    monkeypatch.setattr(fetching, "LEAST_PATIENCE_S", 60)
    yield
    fetching.use_cache(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    out.mkdir()
    write_set(out, "n", [40, 17, 64, 9], ("PNG", "JPEG"))
    return out


def plan_of(shards: Shards, shuffle: str, steps: int = 40, batch: int = 8) -> Plan:
    source = PlanSource(
        "n", len(shards), Fraction(1), shards.spec, shards.digest, blocks_of(shards, BLOCK)
    )
    return Plan([source], PlanSettings(batch=batch, steps=steps, seed=3, shuffle=shuffle))


def run(plan: Plan, shards: Shards, ahead: FetchAhead, start: int = 0) -> int:
    """Read all steps as a trainer would; returns the most bytes held at once."""
    most = 0
    for step in range(start, plan.steps):
        ahead.begin(step)
        for row in plan.rows(step):
            for sample in row:
                shards.members(sample.position)
                most = max(most, fetcher().held)
        ahead.end(step)
    return most


def used(folder: Path) -> int:
    """Bytes of the disk that the files in a folder take now."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # evicted meanwhile
                total += os.stat(os.path.join(parent, file)).st_blocks * 512
    return total


def tar_requests(far: FarFolder) -> Counter[tuple[str, object]]:
    return Counter((one.path, one.range) for one in far.asked if one.path.endswith(".tar"))


def test_each_block_of_an_epoch_is_fetched_once(folder: Path) -> None:
    with FarFolder(folder) as far:
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, "blocks", steps=16)
        most = run(plan, shards, FetchAhead(plan, [shards]))
        found = tar_requests(far)
    assert set(found.values()) == {1}
    # The samples of the first step come one by one, then all blocks; some touch and come together.
    first = [shards.row(sample.position) for row in plan.rows(0) for sample in row]
    assert len(found) <= len(first) + BLOCKS
    every = sum(shards.row(at).size for at in range(len(shards)))
    assert every < fetcher().fetched < every + sum(row.size for row in first)
    assert fetcher().held == 0 < most


def test_memory_holds_an_order_window_and_the_fetch_buffers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_ahead, "FETCH_BYTES", 120_000)
    with FarFolder(folder) as far:
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, "blocks", steps=64)
        ahead = FetchAhead(plan, [shards])
        order = plan.row_sequences[0].order
        window = fetch_cost(shards, order, memory=1 << 30, cache=0).window
        assert fetcher().limit == 120_000 + window
        assert run(plan, shards, ahead) <= fetcher().limit
        requests = sum(tar_requests(far).values())
    # 64 steps are about four epochs: next to no block is fetched twice in its epoch.
    assert requests <= 4 * BLOCKS + 8


def test_windows_that_fit_nowhere_are_fetched_sample_by_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_ahead, "WINDOW_BYTES", 1000)
    with FarFolder(folder) as far:
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, "blocks", steps=16)
        run(plan, shards, FetchAhead(plan, [shards]))
        found = tar_requests(far)
        assert 100 < len(found) <= 128 and set(found.values()) == {1}  # a sample each
    assert fetcher().limit == FETCH_BYTES


@pytest.mark.parametrize("shuffle", ["full", "none"])
def test_other_orders(folder: Path, shuffle: str) -> None:
    with FarFolder(folder) as far:
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, shuffle, steps=16)
        ahead = FetchAhead(plan, [shards])
        run(plan, shards, ahead)
        found = tar_requests(far)
        assert set(found.values()) == {1} and fetcher().held == 0
        # In order, neighbours come with one request; a full permutation has next to none.
        assert len(found) > 100 if shuffle == "full" else len(found) <= 128


def test_a_run_that_starts_in_the_middle(folder: Path) -> None:
    with FarFolder(folder) as far:
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, "blocks", steps=16)
        run(plan, shards, FetchAhead(plan, [shards], start=14), start=14)
        order = plan.row_sequences[0].order
        blocks = set(order.blocks(15 * 8, 16 * 8).tolist())
        assert len(tar_requests(far)) == 8 + len(blocks)  # samples of the first step, then blocks


def test_a_second_run_reads_from_the_cache(folder: Path, tmp_path: Path) -> None:
    with FarFolder(folder) as far:
        for again in (False, True):
            fetching._fetcher = Fetcher(cache=BlockCache(tmp_path / "cache", 100_000_000))
            shards = open_shards(f"{far.url}/n.json")
            plan = plan_of(shards, "blocks", steps=32)
            before = sum(tar_requests(far).values())
            run(plan, shards, FetchAhead(plan, [shards], cache_bytes=100_000_000))
            sent = sum(tar_requests(far).values()) - before
            assert sent == 0 if again else 0 < sent <= 8 + BLOCKS, (sent, again)
            assert fetcher().held == 0 and (fetcher().fetched == 0) == again


@pytest.mark.parametrize("memory", [1000, 1 << 27])
@pytest.mark.parametrize("limit", [5_000, 60_000, 300_000])
def test_a_cache_smaller_than_the_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, memory: int
) -> None:
    monkeypatch.setattr(fetch_ahead, "WINDOW_BYTES", memory)
    cache = tmp_path / "cache"
    near = open_shards(folder / "n.json")
    with FarFolder(folder) as far:
        fetching._fetcher = Fetcher(cache=BlockCache(cache, limit))
        shards = open_shards(f"{far.url}/n.json")
        plan = plan_of(shards, "blocks", steps=48)
        ahead = FetchAhead(plan, [shards], cache_bytes=limit)
        for step in range(plan.steps):
            ahead.begin(step)
            for row in plan.rows(step):
                assert shards.members(row[0].position) == near.members(row[0].position)
            ahead.end(step)
            assert used(cache) <= limit


def test_local_shards_need_nothing(folder: Path) -> None:
    shards = open_shards(folder / "n.json")
    plan = plan_of(shards, "blocks")
    ahead = FetchAhead(plan, [shards])
    assert run(plan, shards, ahead) == 0 and fetcher().requests == 0


def test_cost_of_an_order(folder: Path) -> None:
    shards = open_shards(folder / "n.json")
    blocks = BlockShuffle("n", blocks_of(shards, BLOCK), seed=1)
    each = sum(one.bytes for one in shards.shard_set.shards) / len(shards)
    cost = fetch_cost(shards, blocks, memory=1 << 30, cache=0)
    assert cost == FetchCost("memory", round(each * (130 / blocks.windows + 8)))
    less = cost.window - 1
    assert fetch_cost(shards, blocks, memory=less, cache=1 << 30).held == "cache"
    assert fetch_cost(shards, blocks, memory=less, cache=less).held == ""
    full = FullShuffle("n", len(shards), seed=1)
    assert fetch_cost(shards, full, memory=1 << 30, cache=1 << 30).held == ""
