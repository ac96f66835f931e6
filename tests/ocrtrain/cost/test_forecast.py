"""The figures of a forecast and their tables."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from ocrdata.planning.fetch_ahead import FetchCost
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
from ocrdata.planning.totals import compute
from ocrtrain.cost.flops import orthogonalising_flops
from ocrtrain.cost.forecast import (
    GPUS,
    Forecast,
    describe,
    describe_fetching,
    describe_gpus,
    describe_order,
    describe_rows,
    figures,
    forecast,
    steps_per_epoch,
)
from ocrtrain.cost.gpus import peak_of
from ocrtrain.cost.memory import CPU_OVERHEAD, OVERHEAD, MicroBatch, estimate_memory
from ocrtrain.data.run_plan import LongSample, OrderOfSource, RunPlan
from ocrtrain.settings.presets import stage1
from tests.support.measured import made_up


def planned(**values: object) -> RunPlan:
    sources = [PlanSource("charts", 60, Fraction(3, 4)), PlanSource("chats", 90, Fraction(1, 4))]
    recipe = replace(PlanSettings(batch=4, steps=40, seed=0, seq_len=100, row_images=8), **values)  # type: ignore[arg-type]
    plan = Plan(sources, recipe, [made_up(s.size, longest=100, truncated=0.1) for s in sources])
    longest = (LongSample("charts", "charts-000.tar", "000000007", 190),)
    return RunPlan(plan, compute(plan, rows_per_pass=4), [], longest)


def small_forecast(**values: object) -> Forecast:
    config = replace(stage1(), batch=4, seq_len=100, image_size=64)
    return forecast(config, planned(**values))


def test_hours_are_flops_over_peak_and_mfu() -> None:
    result = small_forecast()
    total = result.vision_flops + result.text_flops
    assert result.hours(1e12, 0.5) == pytest.approx(total / 5e11 / 3600)
    assert total > 0


def test_what_muon_takes_besides_is_told() -> None:
    plain = small_forecast()
    config = replace(plain.config, optimizer="muon", freeze=("sam",))
    each = orthogonalising_flops(config.model, frozen=("sam",))
    assert f" {each / 1e9:,.4g} GFLOP a step" in describe(replace(plain, config=config))
    assert "muon" not in describe(plain)


def test_every_gpu_has_a_peak_and_its_hours() -> None:
    shown = describe_gpus(small_forecast(), 0.4).splitlines()
    assert shown[0].split() == ["GPU", "memory", "fits", "at", "40%", "MFU"]
    assert len(shown) == len(GPUS) + 1
    assert all(peak_of(name) for name, _ in GPUS)


def test_memory_is_that_of_the_device() -> None:
    """On a CPU fp32, torch's plain attention, and no CUDA; on a GPU bf16."""
    config = replace(stage1(), batch=4, image_size=256)
    gpu, cpu = (forecast(config, planned(), cuda=cuda) for cuda in (True, False))
    for found, of_cuda, beside in ((gpu, True, OVERHEAD), (cpu, False, CPU_OVERHEAD)):
        batch = MicroBatch(
            4,
            found.totals.longest,
            {256: sum(found.totals.largest_pass)},
            bf16=of_cuda,
            cuda=of_cuda,
        )
        wanted = estimate_memory(config.model, batch).total + beside
        assert found.memory == figures(found)["memory_bytes"] == wanted
    assert figures(gpu)["memory_of"] == "cuda" and "on a GPU" in describe(gpu)
    assert figures(cpu)["memory_of"] == "cpu" and "on this CPU" in describe(cpu)
    bf16 = forecast(replace(config, precision="bf16"), planned(), cuda=False)
    assert bf16.memory != cpu.memory  # asked for, autocast is on there too


def test_the_table_of_sources_and_truncated_samples() -> None:
    result = small_forecast()
    shown = describe(result)
    lines = shown.splitlines()
    assert lines[0].split()[0] == "source"
    heads = lines[0].replace(" tok", "-tok").split()
    row = dict(zip(heads, lines[1].split(), strict=False))  # "read" has a unit
    charts = result.totals.sources[0]
    assert row["requested"] == f"{charts.weight_fraction:.1%}"
    assert row["planned"] == f"{charts.planned_fraction:.1%}"
    assert [line.split()[0] for line in lines[1:4]] == ["charts", "chats", "all"]
    assert f"{charts.sums.samples:,}" in lines[1] and "75.0%" in lines[1]
    assert "  190 tokens in charts-000.tar:000000007" in shown
    sums = result.totals.sums
    (line,) = (line for line in lines if "--seq-len 100" in line)
    assert sums.truncated_samples > 0
    for count in (sums.truncated_samples, sums.truncated_tokens, sums.truncated_turns):
        assert f" {count:,} " in line


def test_a_run_without_images_is_said_to_be_one() -> None:
    result = small_forecast()
    sources = tuple(replace(one, sums=one.sums._replace(images=0)) for one in result.totals.sources)
    text = replace(result, totals=replace(result.totals, sources=sources))
    assert "no sample has an image" not in describe(result)
    assert "no sample has an image" in describe(text)


def test_the_line_on_an_order_says_what_is_read_at_a_time() -> None:
    charts = OrderOfSource("charts", "blocks", 18_000, 38_000.0, 16, 2_250, epochs=0.5)
    line = describe_order(charts)
    for fact in ("charts", " 16 samples", "608.0 KB", "2,250", "85.5 MB"):
        assert fact in line
    full, none = (charts._replace(shuffle=shuffle, block=0, window=0) for shuffle in
                  ("full", "none"))  # fmt: skip
    assert len({line, describe_order(full), describe_order(none)}) == 3
    result = replace(small_forecast(), orders=(charts, full))
    assert [one for one in describe(result).splitlines() if one.startswith("order of ")] == [
        line, describe_order(full),
    ]  # fmt: skip


def test_the_line_on_fetching_says_requests_memory_and_bytes() -> None:
    near = OrderOfSource("charts", "blocks", 16_000, 40_000.0, 16, 2_000, epochs=0.5)
    blocks = near._replace(fetch=FetchCost("memory", 80_000_000))
    line = describe_fetching(blocks, 0)
    for fact in ("16 samples", "1,000 an epoch", "80.0 MB", "memory", "320.0 MB in this run"):
        assert fact in line
    cached = blocks._replace(fetch=FetchCost("cache", 80_000_000))
    assert "held in the cache" in describe_fetching(cached, 10**9)
    several = blocks._replace(epochs=3.0)
    assert "640.0 MB" in describe_fetching(several, 0) and "1.3 GB again" in describe_fetching(
        several, 0
    )
    assert "680.0 MB again" in describe_fetching(several, 300_000_000)
    assert "0 B again" in describe_fetching(several, 10**9)
    large = blocks._replace(fetch=FetchCost("", 500_000_000))
    line = describe_fetching(large, 0)
    assert "one request a sample, 16,000" in line and "--cache-limit 1.0GB" in line
    full = near._replace(shuffle="full", fetch=FetchCost("", 0))
    line = describe_fetching(full, 0)
    assert "one request a sample, 16,000 an epoch" in line and "--shuffle blocks" in line
    assert "in order" in describe_fetching(full._replace(shuffle="none"), 0)
    local = replace(small_forecast(), orders=(near,))
    far = replace(small_forecast(), orders=(blocks,))
    assert "afar" not in describe(local) and "afar" in describe(far)


def test_packed_and_unpacked_rows_in_one_table() -> None:
    ways = {pack: planned(pack_window=30 if pack else 0).totals for pack in (True, False)}
    lines = describe_rows(ways).splitlines()
    assert lines[1].startswith("packed (--pack)") and lines[2].startswith("one sample per row")
    assert ways[True].padding < ways[False].padding


def test_steps_per_epoch() -> None:
    totals = planned().totals
    charts = totals.sources[0]
    assert charts.rows == 120 and charts.epochs == 2
    assert steps_per_epoch(totals, charts) == 20
    assert figures(small_forecast())["sources"][0]["steps_per_epoch"] == 20
