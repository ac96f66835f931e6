"""Show the batch of any step of a run: which samples, how they were packed, what the model read.

    python tools/show_batch.py --run runs/stage1-full --step 850
    python tools/show_batch.py --run runs/stage1-full --step 850 --rank 1 --world 2
    python tools/show_batch.py --run runs/stage1-full --step 850 --shards /mnt/new/chartqa.json

The batch is rebuilt from the run folder and the shards, without a GPU and without weights, and its
identity is compared with the one that training recorded; where they differ nothing is shown and the
exit status is 1. Steps that training has not reached can be shown too, and a run that is going on.
Nothing is written into the run: a page (HTML, complete in itself) and a contact sheet (PNG) go to
--out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ocrdata.errors import UsageError
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_bytes
from ocrdata.storage.files import atomic_file, make_folder
from ocrdata.storage.locks import Lock
from ocrtrain.inspection.contact_sheet import sheet
from ocrtrain.inspection.pages.batch import page
from ocrtrain.inspection.rebuild import RebuildRequest, RebuiltBatch, rebuild
from ocrtrain.inspection.report import Limits, describe

TRAINED_BY = 1
"""Ranks of a run: the trainer is one process."""


def main(arguments: Sequence[str]) -> int:
    """Rebuild, compare, print, and write the page and the sheet."""
    typed = build_parser().parse_args(list(arguments))
    if typed.rank is None and typed.world != TRAINED_BY:
        raise UsageError(f"--world {typed.world}: say with --rank whose rows are to be shown")
    limits = Limits(typed.rows, typed.samples, typed.images, typed.tokens)
    shown = rebuild(
        RebuildRequest(
            typed.run, typed.step, shards=tuple(typed.shards), text=tuple(typed.text),
            rank=typed.rank or 0, world=0 if typed.rank is None else typed.world,
        )
    )  # fmt: skip
    if shown.problem is not None and not typed.anyway:
        raise shown.problem
    _print(describe(shown, limits))
    for path in _write(shown, limits, typed.out):
        print(f"written to {path} ({human_bytes(path.stat().st_size)})")
    if shown.problem is not None:
        raise shown.problem
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="tools/show_batch.py", description=__doc__ or "")
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="which step's batch")
    parser.add_argument("--rank", type=int, metavar="R", help="only the rows of this rank ...")
    parser.add_argument(
        "--world", type=_positive, default=TRAINED_BY, metavar="W",
        help=f"... of so many (default: {TRAINED_BY}, as the trainer has)",
    )  # fmt: skip
    for name, what in (("shards", "image shards"), ("text", "text-only shards")):
        parser.add_argument(
            f"--{name}", nargs="+", default=[], metavar="SPEC",
            help=f"where the run's {what} lie now, if they moved",
        )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("shown"), metavar="FOLDER",
        help="where the page and the sheet go (default: shown)",
    )  # fmt: skip
    for name, value in vars(Limits()).items():
        what = "tokens of each sample" if name == "tokens" else name
        parser.add_argument(
            f"--{name}", type=_count, default=value, metavar="N",
            help=f"show at most so many {what} (default: {value:,})",
        )  # fmt: skip
    parser.add_argument(
        "--anyway", action="store_true",
        help="show what is rebuilt even where it is not what was trained on, and end with status 1",
    )  # fmt: skip
    return parser


def _count(text: str) -> int:
    """A number of things to show, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    """A number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _print(text: str) -> None:
    """To standard output, whatever letters its encoding has."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _write(shown: RebuiltBatch, limits: Limits, folder: Path) -> list[Path]:
    """The page and the sheet, each whole or not at all; their paths."""
    asked = shown.asked
    name = f"{asked.run.resolve().name}-step_{asked.step:06d}"
    if asked.world:
        name += f"-rank_{asked.rank}_of_{asked.world}"
    make_folder(folder)
    html, png = folder / f"{name}.html", folder / f"{name}.png"
    with Lock(folder / f".{name}.lock", str(html)):
        with atomic_file(html) as file:
            for piece in page(shown, limits):
                file.write(piece.encode("utf-8", "backslashreplace"))
        with atomic_file(png) as file:
            sheet(shown, limits).save(file, "PNG")
    return [html, png]


if __name__ == "__main__":
    run(main)
