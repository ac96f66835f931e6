"""Forecast of a run's cost, computed from its plan before a GPU is rented.

`plan.json` holds the figures; `tools/plan.py` and the start of every run print them; the metrics
logged by the run add up to the same totals. GPU hours are computed for an assumed MFU: nothing here
was measured on the GPUs listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocrdata.planning.fetch_ahead import WINDOW_BYTES
from ocrdata.planning.totals import PlanTotals, SampleSums, SourceTotals
from ocrdata.runtime.units import human_bytes, human_time
from ocrtrain.cost.flops import Flops, Workload, orthogonalising_flops, training_flops
from ocrtrain.cost.gpus import peak_of
from ocrtrain.cost.memory import USABLE, estimate_memory, overhead, pass_of
from ocrtrain.data.run_plan import LongSample, OrderOfSource, RunPlan
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots

GPUS = (
    ("NVIDIA L4", 24), ("NVIDIA GeForce RTX 4090", 24), ("NVIDIA L40S", 48),
    ("NVIDIA A100-SXM4-80GB", 80), ("NVIDIA H100 80GB HBM3", 80), ("NVIDIA H200", 141),
    ("NVIDIA B200", 192),
)  # fmt: skip
"""Names as torch reports them, and memory in GB, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Forecast:
    """Totals of a run, FLOPs by source, peak memory of a step in bytes, orders, and whether the
    memory is that of a GPU or of the CPU."""

    config: Config
    totals: PlanTotals
    longest: tuple[LongSample, ...]
    flops: tuple[Flops, ...]
    memory: float
    orders: tuple[OrderOfSource, ...] = ()
    cuda: bool = True

    @property
    def vision_flops(self) -> float:
        """FLOPs of SAM, CLIP and projector over the run."""
        return sum(flops.vision for flops in self.flops)

    @property
    def text_flops(self) -> float:
        """FLOPs of the decoder over the run."""
        return sum(flops.text for flops in self.flops)

    def hours(self, peak: float, mfu: float) -> float:
        """Hours on a device of `peak` FLOP/s of which the fraction `mfu` is reached."""
        return (self.vision_flops + self.text_flops) / (peak * mfu) / 3600


def forecast(config: Config, planned: RunPlan, *, cuda: bool = True) -> Forecast:
    """FLOPs and memory of a planned run, on a GPU or on the CPU. `config.model.vocab_size` must be
    set, not 0."""
    totals = planned.totals
    flops = tuple(
        training_flops(
            config.model,
            workload(source.sums, config.image_mode(source.name).size),
            frozen=config.freeze,
        )
        for source in totals.sources
    )
    largest = pass_of(config, row_length=totals.longest, images=_by_size(config, totals), cuda=cuda)
    memory = estimate_memory(
        config.model, largest, optimizer=config.optimizer, frozen=config.freeze
    )
    of_step = memory.total + overhead(cuda=cuda)
    return Forecast(config, totals, planned.longest, flops, of_step, planned.orders, cuda)


def workload(sums: SampleSums, size: int) -> Workload:
    """The part of `sums` that FLOPs depend on; images are of `size` px."""
    return Workload({size: sums.images}, sums.tokens, sums.squares, sums.supervised)


def _by_size(config: Config, totals: PlanTotals) -> Counter[int]:
    """Numbers of images by size, in the pass with the most to encode."""
    found: Counter[int] = Counter()
    for source, images in zip(totals.sources, totals.largest_pass, strict=True):
        found[config.image_mode(source.name).size] += images
    return found


def figures(result: Forecast) -> dict[str, Any]:
    """All figures as JSON values, for `plan.json`."""
    totals, sizes = result.totals, _sizes(result)
    return {
        "steps": totals.steps,
        "rows": totals.rows,
        **_sums(totals.sums, _image_tokens(result)),
        "positions": totals.positions,
        "padding": totals.padding,
        "longest_row": totals.longest,
        "most_images_in_a_pass": totals.most_images,
        "vision_flops": result.vision_flops,
        "text_flops": result.text_flops,
        "memory_bytes": result.memory,
        "memory_of": "cuda" if result.cuda else "cpu",
        "longest_samples": [sample._asdict() for sample in result.longest],
        "sources": [
            {
                "name": source.name,
                "samples_in_view": source.size,
                "dropped": source.dropped,
                "epochs": source.epochs,
                "steps_per_epoch": steps_per_epoch(totals, source),
                "share_asked": source.weight_fraction,
                "share_got": source.planned_fraction,
                "rows": source.rows,
                "image_size": sizes[source.name],
                **_sums(source.sums, source.sums.images * image_slots(sizes[source.name])),
                "vision_flops": flops.vision,
                "text_flops": flops.text,
            }
            for source, flops in zip(totals.sources, result.flops, strict=True)
        ],
    }


def _sizes(result: Forecast) -> dict[str, int]:
    """The side of the images of each source, in px."""
    return {one.name: result.config.image_mode(one.name).size for one in result.totals.sources}


def _image_tokens(result: Forecast) -> int:
    """Positions of the images of all sources."""
    sizes = _sizes(result)
    return sum(one.sums.images * image_slots(sizes[one.name]) for one in result.totals.sources)


def _sums(sums: SampleSums, image_tokens: int) -> dict[str, int]:
    return {
        "samples": sums.samples,
        "images": sums.images,
        "tokens": sums.tokens,
        "image_tokens": image_tokens,
        "text_tokens": sums.tokens - image_tokens,
        "supervised": sums.supervised,
        "bytes": sums.bytes,
        "cut_samples": sums.truncated_samples,
        "cut_tokens": sums.truncated_tokens,
        "cut_turns": sums.truncated_turns,
        "empty_samples": sums.empty,
    }


def steps_per_epoch(totals: PlanTotals, source: SourceTotals) -> float:
    """Steps of the run per epoch of a source; 0 if no sample of it is drawn."""
    return totals.steps / source.epochs if source.sums.samples else 0.0


def describe(result: Forecast) -> str:
    """The figures as text for a terminal, with a table of the sources."""
    totals, sizes = result.totals, _sizes(result)
    head = ("source", "samples", "drawn", "epochs", "image tok", "text tok", "supervised",
            "requested", "planned", "read", "truncated")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    for one in totals.sources:
        lines.append(_line(one, one.sums.images * image_slots(sizes[one.name])))
    if len(totals.sources) > 1:
        sums, size = totals.sums, sum(source.size for source in totals.sources)
        lines.append(("all", f"{size:,}", f"{sums.samples:,}", "",
                      *_tokens(sums, _image_tokens(result)), "", "",
                      human_bytes(sums.bytes), f"{sums.truncated_samples:,}"))  # fmt: skip
    total = result.vision_flops + result.text_flops
    vision = result.vision_flops / total if total else 0.0
    return "\n".join(
        [
            _table(lines),
            f"{totals.steps:,} steps of {totals.batch} rows: {totals.sums.tokens:,} tokens in "
            f"{totals.positions:,} positions, padding {totals.padding:.1%}; longest row "
            f"{totals.longest:,}",
            *_image_sizes(result),
            *(
                f"an epoch of {source.name} is {steps_per_epoch(totals, source):,.1f} steps"
                for source in totals.sources
                if source.sums.samples
            ),
            *map(describe_order, result.orders),
            *(
                describe_fetching(one, result.config.cache_bytes)
                for one in result.orders
                if one.fetch
            ),
            f"--seq-len {result.config.seq_len} --too-long {result.config.too_long}: "
            f"{totals.sums.truncated_samples:,} samples truncated by "
            f"{totals.sums.truncated_tokens:,} tokens, {totals.sums.truncated_turns:,} whole turns"
            + (f"; {dropped:,} samples dropped" if (dropped := _dropped(totals)) else "")
            + (
                f"; {empty:,} samples have no supervised token"
                if (empty := totals.sums.empty)
                else ""
            ),
            *_without_images(totals),
            *_shortened(result),
            "longest samples:",
            *(f"  {one.tokens:,} tokens in {one.shard}:{one.key}" for one in result.longest),
            f"{total / 1e15:,.4g} PFLOP, {vision:.0%} vision and {1 - vision:.0%} text; peak "
            f"memory of a step about {result.memory / 1e9:.3g} GB on "
            + ("a GPU" if result.cuda else "this CPU"),
            *_muon(result),
        ]
    )


def _image_sizes(result: Forecast) -> list[str]:
    """A line on the sizes of images, if sources have different ones."""
    shown = {one.name: one.sums.images for one in result.totals.sources if one.sums.images}
    sizes = {name: size for name, size in _sizes(result).items() if name in shown}
    if len(set(sizes.values())) < 2:
        return []
    each = (f"{name} {size} px ({image_slots(size)} positions)" for name, size in sizes.items())
    return [f"image sizes: {', '.join(each)}"]


def describe_order(order: OrderOfSource) -> str:
    """A line on the order of a source, and what it reads at a time."""
    head = f"order of {order.source}: "
    if order.shuffle == "blocks":
        block, window = order.block, order.window
        return head + (
            f"blocks of {block:,} samples, about {human_bytes(block * order.bytes_per_sample)}; "
            f"shuffled in windows of about {window:,}, "
            f"{human_bytes(window * order.bytes_per_sample)}"
        )
    if order.shuffle == "none":
        return head + "not shuffled"
    return head + "a permutation of all samples"


def describe_fetching(order: OrderOfSource, cache_bytes: int) -> str:
    """A line on how a source at URLs is fetched: requests, what is held, what is fetched again."""
    fetch = order.fetch
    assert fetch is not None
    head = f"{order.source} is read from afar: "
    if order.shuffle == "full":
        head += (
            f"one request a sample, {order.drawn:,} an epoch (--shuffle blocks joins neighbours)"
        )
    elif order.shuffle == "none":
        head += "in order, neighbours together"
    elif fetch.held:
        where = "in the cache" if fetch.held == "cache" else "in memory"
        head += (
            f"one request for {order.block:,} samples, {order.drawn / order.block:,.0f} an epoch; "
            f"order windows of {human_bytes(fetch.window)} are held {where}"
        )
    else:
        enough = human_bytes(2 * fetch.window).replace(" ", "")
        head += (
            f"one request a sample, {order.drawn:,} an epoch, as its order windows of "
            f"{human_bytes(fetch.window)} fit neither in memory ({human_bytes(WINDOW_BYTES)}) nor "
            f"in the cache ({human_bytes(cache_bytes)}); give --cache DIR --cache-limit {enough}"
        )
    epoch = order.drawn * order.bytes_per_sample
    again = max(0.0, epoch - cache_bytes) * max(0.0, order.epochs - 1)
    if order.epochs <= 1:
        return f"{head}; {human_bytes(order.epochs * epoch)} in this run"
    return (
        f"{head}; an epoch is {human_bytes(epoch)}, and later ones fetch about "
        f"{human_bytes(again)} again"
    )


def _without_images(totals: PlanTotals) -> list[str]:
    """A line if no sample of the run has an image, as after text was named with --shards."""
    return ["no sample has an image: SAM, CLIP and the projector learn nothing in this run"] * (
        not totals.sums.images
    )


def _shortened(result: Forecast) -> list[str]:
    """A line if the warm-up is longer than the run."""
    warmup, steps = result.config.warmup, result.totals.steps
    used = min(warmup, steps - 1)
    return [f"--warmup {warmup} is shortened to {used}: the run has {steps:,} steps"] * (
        used < warmup
    )


def _muon(result: Forecast) -> list[str]:
    """A line on what Muon's updates take beside the model, which hours and MFU leave out."""
    config = result.config
    if config.optimizer != "muon":
        return []
    each = orthogonalising_flops(config.model, frozen=config.freeze)
    total = (result.vision_flops + result.text_flops) / result.totals.steps
    return [
        f"--optimizer muon: {each / 1e9:,.4g} GFLOP a step in fp32 besides, {each / total:.0%} of "
        "the model's"
    ]


def _dropped(totals: PlanTotals) -> int:
    return sum(source.dropped for source in totals.sources)


def _line(source: SourceTotals, image_tokens: int) -> tuple[str, ...]:
    sums = source.sums
    return (
        source.name, f"{source.size:,}", f"{sums.samples:,}", f"{source.epochs:.2f}",
        *_tokens(sums, image_tokens), f"{source.weight_fraction:.1%}",
        f"{source.planned_fraction:.1%}", human_bytes(sums.bytes), f"{sums.truncated_samples:,}",
    )  # fmt: skip


def _tokens(sums: SampleSums, image: int) -> tuple[str, str, str]:
    return f"{image:,}", f"{sums.tokens - image:,}", f"{sums.supervised:,}"


def describe_rows(ways: Mapping[bool, PlanTotals | str]) -> str:
    """A table that compares packed and unpacked rows.

    `ways` maps --pack to the totals of its plan, or to the reason why it cannot be planned.
    """
    lines: list[tuple[str, ...]] = [("rows", "steps", "samples", "tokens", "positions", "padding")]
    impossible = []
    for pack, totals in ways.items():
        name = "packed (--pack)" if pack else "one sample per row"
        if isinstance(totals, str):
            impossible.append(f"{name}: {totals}")
            continue
        sums = totals.sums
        lines.append((name, f"{totals.steps:,}", f"{sums.samples:,}", f"{sums.tokens:,}",
                      f"{totals.positions:,}", f"{totals.padding:.2%}"))  # fmt: skip
    return "\n".join([_table(lines), *impossible])


def describe_gpus(result: Forecast, mfu: float) -> str:
    """A table of GPUs: whether the run fits in memory, and its time at an MFU."""
    lines: list[tuple[str, ...]] = [("GPU", "memory", "fits", f"at {mfu:.0%} MFU")]
    for gpu in gpu_figures(result, mfu):
        fits, time = "yes" if gpu["fits"] else "no", human_time(3600 * gpu["hours"])
        lines.append((gpu["name"], f"{gpu['memory_gb']} GB", fits, time))
    return _table(lines)


def gpu_figures(result: Forecast, mfu: float) -> list[dict[str, Any]]:
    """Of each of GPUS: whether the run fits in its memory, and its hours at an MFU."""
    found = []
    for name, size in GPUS:
        peak = peak_of(name)
        assert peak is not None
        fits = result.memory <= size * 1e9 * USABLE
        hours = result.hours(peak, mfu)
        found.append({"name": name, "memory_gb": size, "fits": fits, "hours": hours})
    return found


def row_figures(ways: Mapping[bool, PlanTotals | str]) -> dict[str, dict[str, Any]]:
    """What `describe_rows` says, as JSON values: the figures of either way, or why there are
    none."""
    return {
        "packed" if pack else "one_sample_per_row": {"impossible": totals}
        if isinstance(totals, str)
        else {
            "steps": totals.steps,
            "samples": totals.sums.samples,
            "tokens": totals.sums.tokens,
            "positions": totals.positions,
            "padding": totals.padding,
        }
        for pack, totals in ways.items()
    }


def _table(lines: list[tuple[str, ...]]) -> str:
    """Cells aligned in columns: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
