"""Know before you pay: what a run will take, computed from indexes and token counts alone.

    python tools/plan.py --stage stage1 --shards 'shards/chartqa-<000..017>.tar'
    python tools/plan.py --stage stage2 --shards 'shards/chartqa-<000..017>.tar' \\
        --text shards/smoltalk-train.json --pack --mfu 0.4

The flags are those of `python -m ocrtrain.stage1` and `stage2`. The run will print the same
figures, and its logs will add up to them. Nothing is trained and no GPU is needed. Missing token
counts are computed first, once, and stored beside the shards. Writes `plan.json` into the run
folder, as the run itself does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocrdata.errors import UsageError
from ocrdata.planning.totals import PlanTotals
from ocrdata.runtime.cli import Parser, run
from ocrdata.storage.files import make_folder
from ocrdata.storage.locks import Lock
from ocrtrain.cost.forecast import (
    MFU,
    describe,
    describe_gpus,
    describe_rows,
    figures,
    forecast,
)
from ocrtrain.cost.gpus import model_summary
from ocrtrain.data.run_plan import lengths_of_sources, plan_with_lengths
from ocrtrain.data.sources import describe_shared, open_sources, shared_samples
from ocrtrain.model.factory import find_tokenizer, with_vocabulary
from ocrtrain.settings import presets
from ocrtrain.settings.checks import check_data, lacks_encoder
from ocrtrain.settings.flags import ParsedFlags, parse
from ocrtrain.state.run_files import write_sealed

STAGES = {"stage1": presets.stage1, "stage2": presets.stage2}


def main(arguments: Sequence[str]) -> int:
    """Plan, print, and write plan.json."""
    flags, mfu = read(arguments)
    config, folder = flags.config, Path(flags.config.run_folder)
    _check_no_run(folder)
    check_data(config)
    sources = open_sources(config)
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
    found = forecast(config, planned)
    print(describe(found))
    if shared := shared_samples(sources):
        print(describe_shared(shared))
    print(describe_rows(by_packing))
    print(model_summary(config))
    print(describe_gpus(found, mfu))
    if lacks_encoder(config):
        print("the run will need --deepencoder FILE, which stage 1 writes when it ends")
    make_folder(folder)
    with Lock(folder / ".lock", f"the run {folder}"):
        _check_no_run(folder)  # again, under the lock: one may have started meanwhile
        write_sealed(folder / "plan.json", {**planned.recipe(), "figures": figures(found)})
    print(f"written to {folder / 'plan.json'}")
    return 0


def _check_no_run(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} already contains a run and its plan; choose another --out")


def read(arguments: Sequence[str]) -> tuple[ParsedFlags, float]:
    """Parse the command line: the stage's flags, and the MFU to assume."""
    own = Parser(prog="tools/plan.py", description="", add_help=False)
    own.add_argument("--stage", choices=STAGES, default="stage1")
    own.add_argument("--mfu", type=float, default=MFU)
    mine, rest = own.parse_known_args(list(arguments))
    if not 0 < mine.mfu <= 1:
        raise UsageError(f"--mfu {mine.mfu} must be above 0 and at most 1")
    flags = parse(
        rest,
        STAGES[mine.stage],
        prog=f"tools/plan.py --stage {mine.stage}",
        description=f"Plan a run of {mine.stage} (--stage stage1 or stage2). --mfu X is the "
        f"fraction of a GPU's peak to assume, by default {MFU}. All other flags are the stage's "
        "own:",
    )
    if flags.resume:
        raise UsageError("--resume: a plan cannot be resumed; leave the flag out")
    return flags, float(mine.mfu)


if __name__ == "__main__":
    run(main)
