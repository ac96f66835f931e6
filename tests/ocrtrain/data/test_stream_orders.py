"""Whole streams and runs in each order (--shuffle), with several order windows in an epoch."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ocrdata.planning import blocks
from ocrdata.planning.choices import SHUFFLES
from ocrdata.planning.ranks import rank_rows
from ocrdata.reading.prefetch import Prefetcher
from ocrtrain.data.batch_rows import identity_of
from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
from ocrtrain.run.launch import train
from ocrtrain.settings.saved_config import from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support.data import losses
from tests.support.showing import config_of, trained_run
from tests.support.streams import STEPS, make_stream, two_sources

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 samples in order windows of 8: 48 samples are 4 windows."""
    for name, value in (("TARGET_BYTES", 1), ("LEAST_SAMPLES", 4), ("LEAST_BYTES", 1 << 40),
                        ("WINDOW_SAMPLES", 8), ("WINDOW_BLOCKS", 2)):  # fmt: skip
        monkeypatch.setattr(blocks, name, value)


PACKED: dict[str, Any] = {"pack": True, "pack_window": 16, "row_images": 4, "weigh_by": "tokens"}


@pytest.mark.parametrize("values", [{"mix": "sample"}, PACKED], ids=["rows mixed", "packed"])
@pytest.mark.parametrize("shuffle", ["blocks", "none"])  # full: test_stream_resume
def test_batches_do_not_depend_on_workers_and_world_size(
    inputs: dict[str, str], shuffle: str, values: dict[str, Any]
) -> None:
    config = two_sources(inputs, batch=4, shuffle=shuffle, **values)
    stream = make_stream(config)
    wanted = [stream.batch(step).identity for step in range(STEPS)]
    assert len(set(wanted)) == STEPS or shuffle == "none"  # its epochs are alike
    for workers, world in ((0, 2), (2, 1), (3, 4)):
        loaders = []
        for rank in range(world):
            rows = rank_rows(config.batch, rank, world)
            assembly = partial(make_stream(config).assembly, rows=rows)
            loaders.append(Prefetcher(assembly, 3, stop=STEPS, workers=workers))
        for step in range(3, STEPS):
            parts = [next(loader) for loader in loaders]
            found = identity_of([row for part in parts for row in part.row_identities])
            assert found == wanted[step], (workers, world, step)
        for loader in loaders:
            loader.close()


@pytest.mark.parametrize("at_end", ["stop", "move"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_an_epoch_loses_and_repeats_no_sample(
    inputs: dict[str, str], shuffle: str, at_end: str
) -> None:
    config = two_sources(inputs, batch=2, at_end=at_end, steps=100, shuffle=shuffle)
    stream = make_stream(config)
    drawn = Counter(
        (part.source, part.ref.key)
        for step in range(stream.plan.steps)
        for part in stream.batch(step).segments
    )
    assert set(drawn.values()) == {1}
    if at_end == "move":
        assert len(drawn) == 48 + 30


@pytest.mark.parametrize("shuffle", ["blocks", "none"])  # full: the test after it
def test_a_run_is_resumed_and_rebuilt(
    inputs: dict[str, str], tmp_path: Path, shuffle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the blocks of the shards would be others by now, as after compressing them."""
    whole = trained_run(inputs, tmp_path / "whole", shuffle=shuffle, steps=14)
    run = trained_run(inputs, tmp_path / "run", shuffle=shuffle, steps=14, stop_at=9)
    sources = read_sealed(run / "plan.json")["sources"]
    by_blocks = [(4, 8)] * 2 if shuffle == "blocks" else [(None, None)] * 2
    assert [(one.get("block"), one.get("window")) for one in sources] == by_blocks
    monkeypatch.setattr(blocks, "LEAST_SAMPLES", 2)
    monkeypatch.setattr(blocks, "WINDOW_SAMPLES", 20)
    for step in (5, 12):  # recorded, and to come
        rebuilt = rebuild(RebuildRequest(run, step))
        assert rebuilt.problem is None
        assert rebuilt.identity == identities(whole)[step]
    assert train(replace(config_of(inputs, run, shuffle=shuffle, steps=14)), resume=True) == 0
    assert identities(run) == identities(whole) and losses(run) == losses(whole)
    assert read_sealed(run / "plan.json") == read_sealed(whole / "plan.json")


def identities(run: Path) -> list[str]:
    lines = (run / "batches.jsonl").read_text().splitlines()
    return [json.loads(line)["identity"] for line in lines]


def test_a_run_from_before_the_order_by_blocks_keeps_its_permutation(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Its config.json has no `shuffle`, and neither have those of its checkpoints."""
    whole = trained_run(inputs, tmp_path / "whole", shuffle="full")
    run = trained_run(inputs, tmp_path / "run", shuffle="full", stop_at=5)
    (saved,) = checkpoint.complete_checkpoints(run)
    make_older(run / "config.json")
    value = json.loads((saved / "config.json").read_text())
    del value["shuffle"]
    (saved / "config.json").write_text(json.dumps(value))
    checkpoint.write_completion_marker(saved)
    assert read_sealed(run / "plan.json")["order"] == "feistel-1"
    rebuilt = rebuild(RebuildRequest(run, 7))
    assert (rebuilt.problem, rebuilt.identity) == (None, identities(whole)[7])
    config = from_json(read_sealed(run / "config.json"))
    assert config.shuffle == "full"
    assert train(replace(config, stop_at=0), resume=True) == 0
    assert identities(run) == identities(whole) and losses(run) == losses(whole)
    assert read_sealed(run / "config.json")["shuffle"] == "full"


def make_older(path: Path) -> None:
    value = read_sealed(path)
    del value["shuffle"]
    write_sealed(path, value)
