"""Show the batch of any step of a run: its samples, how they are packed, what the model reads.

    python tools/show_batch.py --run runs/stage1-full --step 850
    python tools/show_batch.py --run runs/stage1-full --step 850 --rank 1 --world 2
    python tools/show_batch.py --run runs/stage1-full --step 850 --shards /mnt/new/chartqa.json

The batch is rebuilt from the run folder and the shards, without a GPU and without weights, and its
identity is compared with the one recorded in training; if they differ, nothing is shown and the
exit status is 1. A run can be shown while it is training, including steps it has not reached yet.
The run folder is not changed; a self-contained page (HTML) and a contact sheet (PNG) are written to
--out. With --json the report is a JSON document, with all samples of the batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.runtime.units import human_bytes
from ocrdata.storage.files import atomic_file, make_folder
from ocrdata.storage.locks import Lock
from ocrtrain.inspection.limits import Limits

# What imports torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from ocrtrain.inspection.rebuild import RebuiltBatch

DEFAULT_WORLD = 1
"""Ranks of a run: the trainer is a single process."""


def main(arguments: Sequence[str]) -> int:
    """Rebuilds and verifies the batch, prints the report, writes the page and the sheet."""
    typed, problems = build_parser().parse_with_problems(list(arguments))
    if typed.rank is None and typed.world != DEFAULT_WORLD:
        problems.add(f"--world {typed.world} needs --rank, the rank whose rows to show")
    if typed.run and not typed.run.is_dir():
        problems.add(f"--run {typed.run} is not a run folder: there is no such folder")
    problems.raise_all()
    from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
    from ocrtrain.inspection.report import describe, figures

    limits = Limits(typed.rows, typed.samples, typed.images, typed.tokens)
    rebuilt = rebuild(
        RebuildRequest(
            typed.run, typed.step, shards=tuple(typed.shards), text=tuple(typed.text),
            source=tuple(typed.source), rank=typed.rank or 0,
            world=0 if typed.rank is None else typed.world,
        )
    )  # fmt: skip
    if rebuilt.problem is not None and not typed.anyway:
        raise rebuilt.problem
    if not typed.json:
        _print(describe(rebuilt, limits))
    written = _write(rebuilt, limits, typed.out)
    if typed.json:
        print_json({**figures(rebuilt), "written": written})
    else:
        for path in written:
            print(f"written to {path} ({human_bytes(path.stat().st_size)})")
    if rebuilt.problem is not None:
        raise rebuilt.problem
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="tools/show_batch.py", description=__doc__ or "")
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="which step's batch")
    parser.add_argument("--rank", type=int, metavar="R", help="show only the rows of this rank")
    parser.add_argument(
        "--world", type=_positive, default=DEFAULT_WORLD, metavar="W",
        help=f"with --rank: the number of ranks (default: {DEFAULT_WORLD}, as in training)",
    )  # fmt: skip
    for name, what in (("shards", "image shards"), ("text", "text-only shards")):
        parser.add_argument(
            f"--{name}", nargs="+", default=[], metavar="SPEC",
            help=f"the new paths of the run's {what}, if they have moved",
        )  # fmt: skip
    parser.add_argument(
        "--source", nargs="+", action="extend", default=[], metavar="NAME=SPEC",
        help="the new path of a named source of the run, if it has moved",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("shown"), metavar="FOLDER",
        help="folder for the page and the contact sheet (default: ./shown)",
    )  # fmt: skip
    for name, value in vars(Limits()).items():
        what = "tokens of each sample" if name == "tokens" else name
        parser.add_argument(
            f"--{name}", type=_count, default=value, metavar="N",
            help=f"show at most N {what} (default: {value:,})",
        )  # fmt: skip
    parser.add_argument(
        "--anyway", action="store_true",
        help="show the batch even if it cannot be verified; the exit status is still 1",
    )  # fmt: skip
    add_json_flag(parser)
    return parser


def _count(text: str) -> int:
    """Parses a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    """Parses a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _print(text: str) -> None:
    """Prints a text, with escapes for characters that the output's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _write(rebuilt: RebuiltBatch, limits: Limits, folder: Path) -> list[Path]:
    """Writes the page and the sheet, each atomically, and returns their paths."""
    from ocrtrain.inspection.contact_sheet import sheet
    from ocrtrain.inspection.pages.batch import page

    request = rebuilt.request
    name = f"{request.run.resolve().name}-step_{request.step:06d}"
    if request.world:
        name += f"-rank_{request.rank}_of_{request.world}"
    make_folder(folder)
    html, png = folder / f"{name}.html", folder / f"{name}.png"
    with Lock(folder / f".{name}.lock", str(html)):
        with atomic_file(html) as file:
            for piece in page(rebuilt, limits):
                file.write(piece.encode("utf-8", "backslashreplace"))
        with atomic_file(png) as file:
            sheet(rebuilt, limits).save(file, "PNG")
    return [html, png]


if __name__ == "__main__":
    run(main)
