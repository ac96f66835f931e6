"""Know before you pay: what a run will take, computed from indexes and token counts alone.

    python tools/plan.py --stage stage1 --shards 'shards/chartqa-<000..017>.tar'
    python tools/plan.py --stage stage2 --shards 'shards/chartqa-<000..017>.tar' \\
        --text shards/smoltalk-train.json --pack --mfu 0.4

The flags are those of `python -m ocrtrain.stage1` and `stage2`, with --stage, --mfu, --write and
--json. The run will print the same figures, and its logs will add up to them. Nothing is trained
and no GPU is needed. Missing token counts are computed first, once, and stored beside the shards;
nothing else is written, unless --write names a file for the plan.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrdata.errors import OcrError, Problems, UsageError
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.storage.files import make_folder
from ocrdata.storage.locks import Lock
from ocrtrain.settings import presets
from ocrtrain.settings.checks import lacks_encoder
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import ParsedFlags, parse
from ocrtrain.state.run_files import read_sealed, write_sealed

if TYPE_CHECKING:
    from ocrdata.planning.totals import PlanTotals


MFU = 0.3
"""Default model FLOPs utilization: what models of nanochat's size reach without tuning."""


def main(arguments: Sequence[str]) -> int:
    """Plan, print, and write a plan file if asked; returns the exit status."""
    flags = read(arguments)
    problems, file = Problems(), flags.others["write"]
    with problems:
        _check(flags.config)
    if flags.resume:
        problems.add("--resume, --extend: a plan cannot be resumed; leave the flag out")
    if file:
        with problems:
            _check_replaceable(Path(file))
    problems.raise_all()
    # Imported late: --help and mistakes in the command line need no torch.
    from ocrtrain.cost.forecast import (
        describe,
        describe_gpus,
        describe_rows,
        figures,
        forecast,
        gpu_figures,
        row_figures,
    )
    from ocrtrain.cost.gpus import model_summary
    from ocrtrain.data.leaks import check_leaks
    from ocrtrain.data.run_plan import lengths_of_sources, plan_with_lengths
    from ocrtrain.data.sources import open_sources
    from ocrtrain.model.factory import find_tokenizer, with_vocabulary

    config, mfu = flags.config, float(flags.others["mfu"])
    sources = open_sources(config)
    sources = sources.with_notes(check_leaks(sources, allow=config.allow_leak))
    tokenizer = find_tokenizer(config)
    config = with_vocabulary(config, tokenizer)
    lengths = lengths_of_sources(config, sources, tokenizer)
    planned = plan_with_lengths(config, sources, lengths)
    by_packing: dict[bool, PlanTotals | str] = {config.pack: planned.totals}
    try:
        other = replace(config, pack=not config.pack)
        by_packing[other.pack] = plan_with_lengths(other, sources, lengths).totals
    except UsageError as exc:
        by_packing[not config.pack] = str(exc)
    found = forecast(config, planned, cuda=config.device != "cpu")
    if flags.others["json"]:
        print_json({
            "figures": figures(found),
            "rows": row_figures(by_packing),
            "orders": [one.document() for one in found.orders],
            "validation": planned.validation,
            "held_out": sorted(sources.held_out),
            "notes": sources.notes,
            "mfu": mfu,
            "gpus": gpu_figures(found, mfu),
        })  # fmt: skip
    else:
        print(describe(found))
        print("\n".join(sources.describe()))
        print(describe_rows(by_packing))
        print(model_summary(config))
        print(describe_gpus(found, mfu))
        if lacks_encoder(config):
            print(
                "the run will need --deepencoder FILE, which stage 1 writes when it ends, or "
                "--init with the weights of an encoder"
            )
    if file:
        _write(Path(file), {**planned.recipe(), "figures": figures(found)})
        if not flags.others["json"]:
            print(f"written to {file}")
    return 0


def _write(path: Path, plan: dict[str, Any]) -> None:
    """Write the plan as a run writes its own."""
    make_folder(path.parent)
    with Lock(path.with_name(f".{path.name}.lock"), f"--write {path}"):
        _check_replaceable(path)  # again, under the lock: it may have been written meanwhile
        write_sealed(path, plan)


def _check_replaceable(path: Path) -> None:
    """Raises UsageError where a file of another kind, or the plan of a run, would be replaced."""
    if (path.parent / "config.json").exists():
        raise UsageError(f"--write {path}: the folder contains a run and its plan; name another")
    if path.exists():
        try:
            is_plan = "figures" in read_sealed(path)
        except OcrError:
            is_plan = False
        if not is_plan:
            raise UsageError(f"--write {path} exists but is not a plan; name another file")


def read(arguments: Sequence[str]) -> ParsedFlags:
    """Parse the command line: the stage's flags, and those of this command in `others`. Raises
    UsageErrors for all that is wrong with it."""
    chosen = Parser(prog="tools/plan.py", description="", add_help=False)
    chosen.add_argument("--stage", nargs="?")
    stage = chosen.parse_known_args(list(arguments))[0].stage
    stage = stage if stage in presets.STAGES else "stage1"
    return parse(
        arguments,
        presets.STAGES[stage],
        prog="python tools/plan.py",
        description=__doc__ or "",
        add=_add_flags,
        check=_check,
    )


def _add_flags(parser: Parser) -> None:
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--stage", choices=presets.STAGES, default="stage1", help="stage to plan a run of"
    )
    group.add_argument(
        "--mfu", type=_mfu, default=MFU, metavar="X",
        help="fraction of a GPU's peak FLOPs to assume, for the hours",
    )  # fmt: skip
    group.add_argument("--write", default="", metavar="FILE", help="write the plan to this file")
    add_json_flag(parser)


def _mfu(text: str) -> float:
    """A fraction above 0."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most 1")
    return value


def _check(config: Config) -> None:
    from ocrtrain.data.inputs import check_inputs

    check_inputs(config, weights=False)


if __name__ == "__main__":
    run(main)
