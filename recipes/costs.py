"""What the recipes cost: the table in recipes/README.md.

    python recipes/costs.py --price 2.50
    python recipes/costs.py --write

The plans are those of the commands in the recipes, over sets of the sizes that data.sh makes. Their
samples are all taken to be of one length, the means of the real sets nearest to them that could be
counted (LENGTHS). `tools/plan.py` counts the samples there are: recipes/README.md has the commands.
`--price` is what you pay for an hour of one GPU. `--write` brings the page up to date.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.plan import Plan, PlanSource
from ocrdata.planning.totals import compute
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_time
from ocrtrain.cost.forecast import Forecast, forecast, gpu_figures
from ocrtrain.data.run_plan import RunPlan, plan_settings
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots

PAGE = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- costs.py -->\n", "<!-- end -->\n"

LENGTHS = {"charts": (217, 191), "chats": (174, 106)}
"""Text tokens of a sample, special ones included, and those that are supervised: the means of 753
Pew Research charts with two questions each (OpenCQA), and of 12,000 short conversations, under
GPT-2's vocabulary. Measured 2026-11-29."""

SIZES = {"charts": 18_000, "chats": 10_000}
"""Samples that are trained on: the default slices."""

RECIPES = (
    ("one GPU", 1, 10, 2),
    ("one node", 8, 80, 16),
    ("two nodes", 16, 160, 32),
)
"""Name, GPUs, rows of a step in stage 1 and in stage 2 (--batch)."""

SHOWN = ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3")


def main(arguments: Sequence[str]) -> int:
    """Print the table, or write it into the page; returns the exit status."""
    parser = Parser(prog="python recipes/costs.py", description=__doc__ or "")
    parser.add_argument("--price", type=_price, default=0.0, help="price of an hour of one GPU")
    parser.add_argument("--mfu", type=float, default=0.3, help="fraction of the GPU's peak FLOPs")
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    args = parser.parse_args(arguments)
    if args.write:
        PAGE.write_text(with_table(PAGE.read_text(), table(0.3, 0.0)))
    else:
        print(table(args.mfu, args.price), end="")
    return 0


def _price(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a price")
    return float(text)


def with_table(page: str, text: str) -> str:
    """The page with the table between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + text + END + rest.split(END)[1]


def stages(gpus: int, rows1: int, rows2: int) -> tuple[Config, Config]:
    """The configs of the stages' commands, by which a GPU has its part of the rows in a pass. With
    samples of one length every order costs the same."""
    one = replace(presets.stage1(), shards=("charts",), batch=rows1, micro_batch=rows1 // gpus)
    two = replace(
        presets.stage2(), shards=("charts",), text=("chats",), batch=rows2,
        micro_batch=rows2 // gpus,
    )  # fmt: skip
    return replace(one, shuffle="full"), replace(two, shuffle="full")


@cache
def cost(config: Config) -> Forecast:
    """The forecast of a stage; its memory is that of one GPU."""
    names = ["charts", *(["chats"] if config.text else [])]
    weights = [config.share(text=name == "chats") if config.text else Fraction(1) for name in names]
    sources = [PlanSource(name, SIZES[name], w) for name, w in zip(names, weights, strict=True)]
    plan = Plan(sources, plan_settings(config), [lengths(name, config) for name in names])
    totals = compute(plan, rows_per_pass=config.rows_per_pass)
    return forecast(config, RunPlan(plan, totals, [], ()))


def lengths(name: str, config: Config) -> SampleLengths:
    """The samples of a set, all of the same length."""
    count, images = SIZES[name], int(name == "charts")
    tokens, supervised = LENGTHS[name]
    none = np.empty(0, np.int64)
    return SampleLengths(
        lengths=np.full(count, tokens + images * image_slots(config.image_size), np.int32),
        supervised=np.full(count, supervised, np.int32),
        images=np.full(count, images, np.uint16),
        bytes=np.full(count, 1, np.uint32),
        truncated=none,
        truncated_tokens=none.astype(np.int32),
        truncated_turns=none.astype(np.int32),
        unfit=none,
    )


def table(mfu: float, price: float) -> str:
    """The table, in Markdown: of each recipe and stage, what it takes on each GPU of `SHOWN`."""
    head = ["recipe", "stage", "samples", "PFLOP", "memory of a GPU"]
    for name in SHOWN:
        head += [f"{short(name)}: GPU hours", "time"] + (["price"] if price else [])
    lines = [head, ["---"] * len(head)]
    for recipe, gpus, *rows in RECIPES:
        for config in stages(gpus, *rows):
            found = cost(config)
            flops = (found.vision_flops + found.text_flops) / 1e15
            line = [recipe, config.name[-1], f"{found.totals.sums.samples:,}", f"{flops:,.0f}",
                    f"{found.memory / 1e9:.0f} GB"]  # fmt: skip
            figures = {one["name"]: one for one in gpu_figures(found, mfu)}
            for name in SHOWN:
                hours = figures[name]["hours"]
                line += [f"{hours:.2f}", human_time(3600 * hours / gpus)]
                line += [f"{price * hours:.2f}"] if price else []
            lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def short(name: str) -> str:
    """`NVIDIA H100 80GB HBM3` -> `H100`."""
    return name.removeprefix("NVIDIA ").replace("-", " ").split()[0]


if __name__ == "__main__":
    run(main)
