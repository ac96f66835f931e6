"""Export a trained model as a folder of Hugging Face's libraries.

    python tools/export.py runs/stage2-full exported

The first argument is a run folder, for its newest complete checkpoint (the run may still train), or
one of its checkpoints/step_N folders; the second a folder that does not exist yet. It stands alone:
`AutoModelForImageTextToText`, `AutoTokenizer` and `AutoProcessor` load it with
`trust_remote_code=True`, or with this package installed after `ocrtrain.hf.register()`. Its
tokenizer, chat template and pixels are compared with those of training before the folder gets its
name. `--init DIR` takes it back. docs/export.md says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ocrdata.runtime.cli import Parser, run
from ocrdata.storage.location import Location


def main(arguments: Sequence[str]) -> int:
    """Export; returns the exit status."""
    args, problems = build_parser().parse_with_problems(list(arguments))
    # Imported late: --help needs no torch.
    from ocrtrain.export.folder import check_names, export

    source = folder = Path()
    with problems:
        source, folder = Location.of(args.run).path, Location.of(args.folder).path
        check_names(source, folder)
    problems.raise_all()
    export(source, folder, say=print)
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python tools/export.py", description=__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder, or checkpoints/step_N")
    parser.add_argument("folder", metavar="DIR", help="the folder to make")
    return parser


if __name__ == "__main__":
    run(main)
