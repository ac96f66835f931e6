"""Padding of stage 2's real mix at 8,192 tokens: packed rows, and one sample per row.

    python -m benchmarks.packing [--runs 5]

The real charts (with 1,024 px images) and 10,000 real chats, 18 to 10, are planned by the code that
training and `tools/plan.py` use, with token counts of GPT-2's vocabulary. Two columns: rows padded
to the longest of their batch, as the trainer does, and to the full length, as the original recipe
does. Cases run in turns; planning time is the median. Writes benchmarks/results/packing-DATE.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.common import DATA, interleaved, machine, table, write_result
from benchmarks.steps import make_inputs
from ocrdata.runtime.cli import Parser, run
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.run_plan import lengths_of_sources, plan_with_lengths
from ocrtrain.data.sources import Sources, open_sources
from ocrtrain.model.factory import with_vocabulary
from ocrtrain.settings.config import Config
from ocrtrain.settings.presets import stage2

STEPS = 1500
WANTED = 0.03

WAYS: dict[str, dict[str, int]] = {
    "one a row, batch 2": {"batch": 2},
    "one a row, batch 4": {"batch": 4},
    "one a row, batch 8": {"batch": 8},
    "packed, window 256": {"pack_window": 256},
    "packed, window 1,024": {"pack_window": 1024},
    "packed, window 4,096 (default)": {"pack_window": 4096},
    "packed, window 16,384": {"pack_window": 16_384},
    "packed, 8 images a row": {"row_images": 8},
    "packed, 16 images a row": {"row_images": 16},
}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.packing", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as name:
        config, sources = inputs(Path(name))
        tokenizer = load_tokenizer(config.tokenizer)
        config = with_vocabulary(config, tokenizer)
        lengths = lengths_of_sources(config, sources, tokenizer)
        ways = {name: way(config, options) for name, options in WAYS.items()}
        timings = interleaved(
            {
                name: lambda one=one: plan_with_lengths(one, sources, lengths)
                for name, one in ways.items()
            },
            asked.runs,
        )
        rows = []
        for name, one in ways.items():
            totals = plan_with_lengths(one, sources, lengths).totals
            rows.append(
                {
                    "rows": name,
                    "samples": totals.sums.samples,
                    "tokens": totals.sums.tokens,
                    "positions": totals.positions,
                    "padding": f"{totals.padding:.2%}",
                    "padded to 8,192": f"{1 - totals.sums.tokens / (totals.rows * 8192):.2%}",
                    "most images": totals.most_images,
                    "planning ms": timings[name].median_wall * 1e3,
                }
            )
    print(f"{STEPS:,} steps, charts with chats 18:10, {asked.runs} runs in turns\n")
    print(table(rows))
    print(f"\nwanted: at most {WANTED:.0%} padding when packed")
    result = {**machine(["numpy", "tiktoken"]), "steps": STEPS, "ways": rows}
    print(f"written to {write_result('packing', result)}")
    return 0


def inputs(folder: Path) -> tuple[Config, Sources]:
    """Stage 2 on the real charts and chats."""
    made = make_inputs(folder)
    charts, chats = made["charts"], made["chat"]
    config = replace(
        stage2(),
        shards=(f"{charts}[:700]",), val=(f"{charts}[700:]",),
        text=(f"{chats}[:10000]",), val_text=(f"{chats}[10000:10100]",),
        tokenizer=str(DATA / "tokenizer" / "gpt2.tiktoken"), steps=STEPS,
    )  # fmt: skip
    config = replace(config, model=replace(config.model, vocab_size=0))
    return config, open_sources(config)


def way(config: Config, options: dict[str, int]) -> Config:
    """The config of one line of the table."""
    pack = "batch" not in options
    return replace(config, pack=pack, **options)


if __name__ == "__main__":
    run(main)
