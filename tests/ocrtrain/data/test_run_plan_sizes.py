"""Runs whose sources have images of different sizes: plan, batches, log, resume and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.cost.forecast import describe, forecast
from ocrtrain.cost.memory import MicroBatch, estimate_memory
from ocrtrain.data.run_plan import RunPlan, plan_run
from ocrtrain.data.sources import open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.pages.batch import page
from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
from ocrtrain.model.factory import bare_model, with_vocabulary
from ocrtrain.run import batch_log, run_log
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import layout_slots
from ocrtrain.state.run_files import read_sealed
from tests.support.sizes import LARGE, SMALL, sized_config

pytestmark = pytest.mark.usefixtures("one_thread")

SLOTS = {LARGE: 7, SMALL: 3}
WAYS: dict[str, dict[str, Any]] = {
    "rows mixed": {},
    "by batch": {"mix": "batch"},
    "packed": {"pack": True, "pack_window": 16, "row_images": 4, "seq_len": 80},
    "by tokens, cut": {"weigh_by": "tokens", "seq_len": 22, "micro_batch": 2},
}


def planned(config: Config) -> RunPlan:
    return plan_run(config, open_sources(config), load_tokenizer(config.tokenizer))


@pytest.mark.parametrize("way", WAYS)
def test_batches_are_what_the_plan_says_to_the_token(
    inputs: dict[str, str], tmp_path: Path, way: str
) -> None:
    config = sized_config(inputs, tmp_path, **WAYS[way])
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    found = plan_run(config, sources, tokenizer)
    stream = Stream(found.plan, sources, config, tokenizer=tokenizer)
    batches = [stream.batch(step) for step in range(found.plan.steps)]
    slots = dict.fromkeys(sources.train, 0)
    for batch in batches:
        for number, row in enumerate(batch.rows):
            for segment in row.segments:
                shown = [batch.layouts[image] for image in batch.images_of(number, segment)]
                wanted = LARGE if segment.source == "large" else SMALL
                assert {layout.size for layout in shown} <= {wanted}
                slots[segment.source] += sum(map(layout_slots, shown))
                start = segment.start
                ids = batch.input_ids[number, start : start + segment.length]
                assert int((ids == tokenizer.image).sum()) == sum(map(layout_slots, shown))
    for source in found.totals.sources:
        own = [one for batch in batches for one in batch.segments if one.source == source.name]
        assert sum(one.length for one in own) == source.sums.tokens
        assert sum(one.images for one in own) == source.sums.images
        size = config.image_mode(source.name).size
        assert slots[source.name] == source.sums.images * SLOTS[size]
    model = bare_model(with_vocabulary(config, tokenizer), tokenizer)
    mixed = next(batch for batch in batches if batch.images)
    features = model.see(mixed.images, mixed.layouts)
    assert features is not None
    assert len(features) == int((mixed.input_ids == tokenizer.image).sum())
    if config.mix == "sample":  # not only batches of one size
        assert any(len(set(batch.layouts)) == 2 for batch in batches)


def test_the_size_of_a_source_changes_its_batches_alone(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    tokenizer, identities = load_tokenizer(inputs["tokenizer"]), []
    for values in ({}, {"image_size_of": ()}):
        config = sized_config(inputs, tmp_path, mix="batch", **values)
        sources = open_sources(config)
        stream = Stream(planned(config).plan, sources, config, tokenizer=tokenizer)
        batches = [stream.batch(step) for step in range(config.steps)]
        identities.append([(batch.sources[0], batch.identity) for batch in batches])
    for (name, one), (_, other) in zip(*identities, strict=True):
        assert (one == other) == (name != "large")


def test_a_run_adds_up_to_its_plan_resumes_and_is_shown(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(sized_config(inputs, whole)) == 0
    printed = capsys.readouterr().out
    assert f"small {SMALL} px (3 positions), large {LARGE} px (7 positions)" in printed
    assert train(sized_config(inputs, stopped, stop_at=5)) == 0
    assert train(sized_config(inputs, stopped), resume=True) == 0
    lines = [line for line in run_log.read(whole) if "train/loss" in line]
    again = [line for line in run_log.read(stopped) if "train/loss" in line]
    assert [one["train/loss"] for one in lines] == [one["train/loss"] for one in again]
    said = read_sealed(whole / "plan.json")["figures"]
    assert {one["name"]: one["image_size"] for one in said["sources"]}["large"] == LARGE
    for name in ("tokens", "images", "positions"):
        assert sum(line[f"train/{name}"] for line in lines) == said[name]
    assert lines[-1]["train/total_flops"] == pytest.approx(
        said["vision_flops"] + said["text_flops"], rel=1e-9
    )
    shown = [rebuild(RebuildRequest(whole, step)) for step in range(12)]
    for step, one in enumerate(shown):
        assert one.identity == batch_log.identity_at(whole, step) and one.problem is None
    mixed = next(one for one in shown if len(set(one.batch.layouts)) == 2)
    text = "".join(page(mixed, Limits()))
    assert f"images, {SMALL} and {LARGE} px" in text
    for size, slots in SLOTS.items():
        assert f'width="{size}" height="{size}"' in text
        assert f"image {slots}</kbd>" in text and f"in {size} x {size}" in text


def test_memory_is_that_of_the_pass_with_the_most_to_encode(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    config = sized_config(inputs, tmp_path, precision="fp32")
    config = with_vocabulary(config, load_tokenizer(config.tokenizer))
    found = planned(config)
    (small, large, _), totals = found.totals.largest_pass, found.totals
    tokenizer, sources = load_tokenizer(config.tokenizer), open_sources(config)
    stream = Stream(found.plan, sources, config, tokenizer=tokenizer)
    areas = [
        sum(layout.size**2 for layout in stream.batch(step).layouts) for step in range(config.steps)
    ]
    assert small * SMALL**2 + large * LARGE**2 == max(areas)
    batch = MicroBatch(4, totals.longest, {SMALL: small, LARGE: large})
    memory = forecast(config, found).memory
    assert memory == pytest.approx(estimate_memory(config.model, batch).total, rel=1, abs=2e9)
    assert "image sizes: small 64 px" in describe(forecast(config, found))


def test_a_size_that_leaves_no_room_for_answers_names_its_positions(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    config = sized_config(inputs, tmp_path, image_size_of=("large=512",), seq_len=60)
    with pytest.raises(UsageError, match=r"^large: .*--seq-len 60 .*73 positions"):
        planned(config)
