"""Know before you pay: what a run will take, from indexes and token counts alone.

    python tools/plan.py --stage stage1 --shards 'shards/chartqa-<000..017>.tar'
    python tools/plan.py --stage stage2 --shards 'shards/chartqa-<000..017>.tar' \\
        --text shards/smoltalk-train.json --pack --mfu 0.4

The flags are those of `python -m ocrtrain.stage1` and `stage2`; the run then prints the same
figures, and its logs come to the same sums. Nothing is trained, no GPU is asked for. Token counts
that are missing are made first, once, and kept beside the shards. Writes `plan.json` into the run
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
from ocrtrain.data.run_plan import measure_sources, plan_measured
from ocrtrain.data.sources import describe_shared, open_sources, shared_samples
from ocrtrain.model.factory import find_tokenizer, with_vocabulary
from ocrtrain.settings import presets
from ocrtrain.settings.checks import check_data, lacks_encoder
from ocrtrain.settings.flags import ParsedFlags, parse
from ocrtrain.state.run_files import write_sealed

STAGES = {"stage1": presets.stage1, "stage2": presets.stage2}


def main(arguments: Sequence[str]) -> int:
    """Plan, print, and write plan.json."""
    asked, mfu = read(arguments)
    config, folder = asked.config, Path(asked.config.run_folder)
    _refuse_a_run(folder)
    check_data(config)
    sources = open_sources(config)
    tokenizer = find_tokenizer(config)
    config = with_vocabulary(config, tokenizer)
    measured = measure_sources(config, sources, tokenizer)
    planned = plan_measured(config, sources, measured)
    ways: dict[bool, PlanTotals | str] = {config.pack: planned.totals}
    try:
        other = replace(config, pack=not config.pack)
        ways[other.pack] = plan_measured(other, sources, measured).totals
    except UsageError as exc:
        ways[not config.pack] = str(exc)
    found = forecast(config, planned)
    print(describe(found))
    if shared := shared_samples(sources):
        print(describe_shared(shared))
    print(describe_rows(ways))
    print(model_summary(config))
    print(describe_gpus(found, mfu))
    if lacks_encoder(config):
        print("the run will need --deepencoder FILE, which stage 1 writes at its end")
    make_folder(folder)
    with Lock(folder / ".lock", f"the run {folder}"):
        _refuse_a_run(folder)  # one may have begun since
        write_sealed(folder / "plan.json", {**planned.recipe(), "figures": figures(found)})
    print(f"written to {folder / 'plan.json'}")
    return 0


def _refuse_a_run(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} holds a run with a plan of its own; choose another --out")


def read(arguments: Sequence[str]) -> tuple[ParsedFlags, float]:
    """What was typed: the stage's config, and the MFU to count on."""
    own = Parser(prog="tools/plan.py", description="", add_help=False)
    own.add_argument("--stage", choices=STAGES, default="stage1")
    own.add_argument("--mfu", type=float, default=MFU)
    mine, rest = own.parse_known_args(list(arguments))
    if not 0 < mine.mfu <= 1:
        raise UsageError(f"--mfu {mine.mfu} must be above 0 and at most 1")
    asked = parse(
        rest,
        STAGES[mine.stage],
        prog=f"tools/plan.py --stage {mine.stage}",
        description=f"Plan a run of {mine.stage} (--stage stage1 or stage2). --mfu X is the share "
        f"of a GPU's peak to count on, {MFU} where it is not given. All other flags are the "
        "stage's own:",
    )
    if asked.resume:
        raise UsageError("--resume: a plan has nothing to go on with; plan without it")
    return asked, float(mine.mfu)


if __name__ == "__main__":
    run(main)
