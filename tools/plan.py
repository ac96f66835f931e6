"""Know before you pay: what a run will take, from indexes and token counts alone.

    python tools/plan.py --stage stage1 --shards 'shards/chartqa-<000..017>.tar'
    python tools/plan.py --stage stage2 --shards 'shards/chartqa-<000..017>.tar' \\
        --text shards/smoltalk-train.json --pack

The flags are those of `python -m ocrtrain.stage1` and `stage2`; the run then prints the same
figures, and its logs come to the same sums. Nothing is trained, no GPU is asked for. Token counts
that are missing are made first, once, and kept beside the shards. Writes `plan.json` into the run
folder, as the run itself does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ocrdata.command import Parser, run
from ocrdata.errors import UsageError
from ocrdata.files import make_folder
from ocrtrain import presets
from ocrtrain.build import find_tokenizer, with_vocabulary
from ocrtrain.costs import describe as describe_model
from ocrtrain.flags import parse
from ocrtrain.forecast import MFU, describe, describe_gpus, figures, forecast
from ocrtrain.planning import plan_run
from ocrtrain.runfile import write_sealed
from ocrtrain.start import check_data
from ocrtrain.stream import open_sources

STAGES = {"stage1": presets.stage1, "stage2": presets.stage2}


def main(arguments: Sequence[str]) -> int:
    """Plan, print, and write plan.json."""
    own, rest = _own_parser().parse_known_args(list(arguments))
    if not 0 < own.mfu <= 1:
        raise UsageError(f"--mfu {own.mfu} must be above 0 and at most 1")
    asked = parse(
        rest,
        STAGES[own.stage],
        prog=f"tools/plan.py --stage {own.stage}",
        description=f"Plan a run of {own.stage}. Beside its flags: --mfu X, the share of a GPU's "
        f"peak to count on (default {MFU}).",
    )
    config = asked.config
    folder = Path(config.run_folder)
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} holds a run with a plan of its own; choose another --out")
    check_data(config)
    sources = open_sources(config)
    tokenizer = find_tokenizer(config)
    config = with_vocabulary(config, tokenizer)
    planned = plan_run(config, sources, tokenizer)
    found = forecast(config, planned)
    print(describe(found))
    print(describe_model(config))
    print(describe_gpus(found, own.mfu))
    make_folder(folder)
    write_sealed(folder / "plan.json", {**planned.recipe(), "figures": figures(found)})
    print(f"written to {folder / 'plan.json'}")
    return 0


def _own_parser() -> Parser:
    """The flags that are not the stages'."""
    parser = Parser(prog="tools/plan.py", description="", add_help=False)
    parser.add_argument("--stage", choices=STAGES, default="stage1")
    parser.add_argument("--mfu", type=float, default=MFU)
    return parser


if __name__ == "__main__":
    run(main)
