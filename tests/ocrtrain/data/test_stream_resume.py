"""Resuming the stream of batches: other workers and world sizes, skipped samples."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from ocrdata.errors import ShardError, TransportError
from ocrdata.planning.ranks import rank_rows
from ocrdata.reading import index_cache
from ocrdata.reading.prefetch import Prefetcher
from ocrdata.storage.cache import CACHE_VARIABLE
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.batch_rows import identity_of
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.skipped import Occurrence, SkippedSamples
from ocrtrain.data.sources import open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from tests.support.data import small_config
from tests.support.showing import break_images, config_of, trained_run
from tests.support.streams import STEPS, State, damaged, make_stream, two_sources

KINDS: dict[str, dict[str, object]] = {
    "single source": {"text": (), "val_text": ()},
    "mix": {"mix": "sample", "text_ratio": Fraction(1, 3)},
    "packed mix": {"pack": True, "pack_window": 16, "row_images": 4, "weigh_by": "tokens"},
}
WORKERS, WORLDS = (0, 1, 2, 4), (1, 2, 4)
STOP = 6


def read_ranks(config: Config, workers: int, world: int, steps: range) -> list[tuple[str, State]]:
    """Each step's global identity and the state to save after it, from `world` ranks, each with
    its own prefetcher."""
    streams = [make_stream(config) for _ in range(world)]
    loaders = [
        Prefetcher(
            partial(stream.assembly, rows=rank_rows(config.batch, rank, world)),
            steps.start, stop=steps.stop, workers=workers,
        )
        for rank, stream in enumerate(streams)
    ]  # fmt: skip
    found = []
    for _ in steps:
        parts = [next(loader) for loader in loaders]
        rows = [identity for part in parts for identity in part.row_identities]
        states = {(loader.step, stream.plan.digest)
                  for loader, stream in zip(loaders, streams, strict=True)}  # fmt: skip
        (state,) = states  # every rank would save the same
        found.append((identity_of(rows), state))
    for loader in loaders:
        loader.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_any_workers_and_world_size_continue_from_any_other(
    inputs: dict[str, str], kind: str
) -> None:
    config = two_sources(inputs, batch=4, **KINDS[kind])
    stream = make_stream(config)
    whole = [stream.batch(step) for step in range(STEPS)]
    wanted = [batch.identity for batch in whole]
    assert len(set(wanted)) == STEPS
    if kind != "single source":
        assert len({source for batch in whole for source in batch.sources}) == 2
    if kind == "packed mix":
        assert max(len(row.segments) for batch in whole for row in batch.rows) > 2
    saved = set()
    for workers in WORKERS:
        for world in WORLDS:
            before = read_ranks(config, workers, world, range(STOP))
            assert [identity for identity, _ in before] == wanted[:STOP]
            saved.add(before[-1][1])
    (state,) = saved  # all twelve writers save the same
    step, plan = state
    assert (step, plan) == (STOP, stream.plan.digest)
    for workers in WORKERS:
        for world in WORLDS:
            after = read_ranks(config, workers, world, range(step, STEPS))
            assert [identity for identity, _ in after] == wanted[STOP:]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_loses_and_repeats_no_sample(inputs: dict[str, str], kind: str) -> None:
    config = two_sources(inputs, batch=4, at_end="stop", steps=100, **KINDS[kind])
    stream = make_stream(config)
    drawn = Counter(
        (part.source, part.ref.key)
        for step in range(stream.plan.steps)
        for part in stream.batch(step).segments
    )
    assert set(drawn.values()) == {1}
    ended = stream.plan.sources[stream.plan.ended_by]
    assert sum(source == ended.name for source, _ in drawn) > ended.size - 3 * config.batch


@pytest.mark.parametrize("pack", [False, True])
def test_a_skipped_sample_is_masked_and_not_replaced(
    inputs: dict[str, str], tmp_path: Path, pack: bool
) -> None:
    spec = damaged(inputs, tmp_path, 17)
    values: dict[str, object] = {"pack": pack, "pack_window": 16, "row_images": 3}
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",), **values)
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    skipping = Stream(plan, sources, config, tokenizer=tokenizer, skipped=SkippedSamples(skip=True))
    intact = make_stream(small_config(inputs, tmp_path / "run", **values))
    masked = 0
    for step in range(12):
        found, whole = skipping.batch(step), intact.batch(step)
        assert [part.ref for part in found.segments] == [part.ref for part in whole.segments]
        for part in found.segments:
            assert bool(part.skipped) == (part.ref.position == 17)
            masked += bool(part.skipped)
            if part.skipped:
                assert part.length == 1
        assert len(found.skipped) == sum(part.ref.position == 17 for part in whole.segments)
        if not found.skipped:
            assert found.identity == whole.identity
    assert masked


def test_a_recorded_skipped_sample_is_not_read_again(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """A skipped sample stays skipped even if the shard has been repaired since."""
    spec = damaged(inputs, tmp_path, 17)
    config = small_config(inputs, tmp_path, shards=(spec + "[:48]",), bad_samples="skip")
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    first = SkippedSamples(skip=True, limit=9)
    stream = Stream(plan, sources, config, tokenizer=tokenizer, skipped=first)
    before = [stream.batch(step) for step in range(12)]
    for batch in before:
        first.record(tmp_path, batch)
    again = SkippedSamples(limit=9)
    again.load(tmp_path)
    assert len(again) == 1
    intact = small_config(inputs, tmp_path)
    replayed = Stream(plan, open_sources(intact), intact, tokenizer=tokenizer, skipped=again)
    assert [replayed.batch(step).identity for step in range(12)] == [b.identity for b in before]


def test_a_missing_shard_is_never_skipped(inputs: dict[str, str], tmp_path: Path) -> None:
    spec = damaged(inputs, tmp_path, 17)
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",))
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    stream = Stream(plan, sources, config, tokenizer=tokenizer, skipped=SkippedSamples(skip=True))
    for path in tmp_path.glob("squares-*.tar"):
        path.unlink()
    with pytest.raises(TransportError, match=r"squares-00\d\.tar"):
        for step in range(12):
            stream.batch(step)


class Interrupted(SkippedSamples):
    """Does something, when asked about a sample, that another worker or program would do."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__(skip=True)
        self._meanwhile = meanwhile

    def reason(self, occurrence: Occurrence) -> str:
        self._meanwhile()
        return super().reason(occurrence)


def test_a_replaced_index_is_never_skipped(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache folder, the index of a shard is evicted while one of its samples is being
    read, and the file it is reloaded from is another shard's. That is the fault of no single
    sample."""
    (tmp_path / "no-cache").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "no-cache"))
    monkeypatch.setattr(index_cache, "INDEX_ROWS", 20)
    spec = damaged(inputs, tmp_path, 17)
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[20:40]",), batch=1)
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    (shards,) = sources.train.values()

    def meanwhile() -> None:
        shutil.copy(tmp_path / "squares-000.index.parquet", tmp_path / "squares-001.index.parquet")
        shards.shard_set.block(2, 0)

    stream = Stream(plan, sources, config, tokenizer=tokenizer, skipped=Interrupted(meanwhile))
    with pytest.raises(ShardError, match=r"squares-001.*index") as caught:
        stream.batch(0)
    assert caught.value.key == ""


def test_a_resumed_run_masks_the_same_samples_of_a_slice_after_repairs(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """A run over damaged shards, resumed from an earlier state after they were repaired, trains on
    the same batches again, and they can be rebuilt. Positions count in the whole set."""
    moved = {**inputs, "shards": str(tmp_path / "squares-*.tar")}
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, tmp_path)
    broken = range(7, 48, 5)
    break_images(moved["shards"], broken)
    values = {"shards": (moved["shards"],), "train_slice": "[5:48]", "save_every": 2,
              "bad_samples": "skip", "max_bad": 99}  # fmt: skip
    run = trained_run(moved, tmp_path / "run", stop_at=6, **values)
    trained = (run / "batches.jsonl").read_text().splitlines()
    record = (run / "bad.jsonl").read_text()
    masked = [(line["step"], line["position"]) for line in map(json.loads, record.splitlines())]
    assert {position for _, position in masked} <= set(broken)
    assert {step for step, _ in masked} & {2, 3, 4, 5}
    for step in (4, 6):
        shutil.rmtree(checkpoint.step_folder(run, step))
    break_images(moved["shards"], broken)
    assert train(config_of(moved, run, **values), resume=True) == 0
    assert (run / "bad.jsonl").read_text() == record
    lines = (run / "batches.jsonl").read_text().splitlines()
    assert (len(lines), lines[:6]) == (10, trained)
    replayed = []
    for step, line in enumerate(map(json.loads, lines)):
        shown = rebuild(RebuildRequest(run, step))
        assert (shown.identity, shown.problem) == (line["identity"], None)
        replayed += [(step, segment.ref.position) for segment in shown.batch.skipped]
    assert replayed == masked
