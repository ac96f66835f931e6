"""Evaluate a trained model on a slice: does it answer, and does it look at the images?

    python -m ocrtrain.evaluate --checkpoint runs/stage1-full \\
        --shards 'shards/chartqa-<000..017>.tar[18000:18100]' --exchange

Without --shards: on what the run validates on. Several specs, or sources of the run, are evaluated
one by one and together. Prints the validation loss, the image gain and a table of scores by kind of
question. Writes every answer as a line of JSON, with a summary file beside it. Each turn is asked
alone, as the first question about the images of its sample, so other turns cannot help. With
--exchange every question is asked again about the images of another sample that has a question of
the same kind: an answer that is still correct was not read from the image. Of samples with
identical images only the first is swapped. With --json the summary, the contents of its file, is
the document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrdata.errors import UsageError
from ocrdata.reading.view import Shards
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run, text_aside
from ocrdata.storage.files import atomic_file, make_folder, write_json
from ocrdata.storage.locks import Lock

# What imports torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from ocrtrain.evaluation.answers import Partners, QuestionRunner, ScoreTable
    from ocrtrain.evaluation.generation import Decoding
    from ocrtrain.evaluation.validation import Validation
    from ocrtrain.run.trained import TrainedModel


def main(arguments: Sequence[str]) -> int:
    """Evaluate, print, write; returns the exit status."""
    args, problems = build_parser().parse_with_problems(list(arguments))
    from ocrtrain.data.sources import open_each, open_sources
    from ocrtrain.evaluation.generation import Decoding
    from ocrtrain.model.device import autocast_type, resolve_device
    from ocrtrain.run.trained import check_path, load_for_inference

    with problems:
        decoding = Decoding(args.max_new_tokens, args.batch)
    with problems:
        device = resolve_device(args.device)
    for check in (_check_numbers, _check_out_name):
        with problems:
            check(args)
    if args.checkpoint:
        with problems:
            check_path(Path(args.checkpoint))
    sources: Mapping[str, Shards] = {}
    with problems:
        sources = open_each(args.shards, "--shards")
    problems.raise_all()
    loaded = load_for_inference(Path(args.checkpoint), device)
    sources = sources or open_sources(loaded.config.without_cache()).validation
    if not sources:
        raise UsageError(f"--shards is missing: {loaded.checkpoint} names no validation samples")
    sources = {name: shards[: args.limit or None] for name, shards in sources.items()}
    out = Path(args.out) if args.out else default_out(loaded)
    make_folder(out.parent)
    decoding = replace(decoding, precision=autocast_type(loaded.config.precision, device))
    with Lock(out.with_name(f".{out.name}.lock"), f"--out {out}"), text_aside(args.json):
        check_out(out, _spec(sources))
        summary = evaluate(
            loaded, sources, out, decoding=decoding, workers=args.workers, swap=args.exchange
        )
    if args.json:
        print_json(summary)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    if args.limit < 0 or args.workers < 0:
        raise UsageError("--limit and --workers must not be negative")


def _check_out_name(args: argparse.Namespace) -> None:
    if args.out and Path(args.out).is_dir():
        raise UsageError(f"--out {args.out} is a folder; name a file in it")
    if args.out and Path(args.out).suffix != ".jsonl":
        raise UsageError(f"--out {args.out}: the name must end in .jsonl, such as answers.jsonl")


def evaluate(
    loaded: TrainedModel,
    sources: Mapping[str, Shards],
    out: Path,
    *,
    decoding: Decoding,
    workers: int,
    swap: bool,
) -> dict[str, Any]:
    """Validate, ask, print, and write answers and summary; returns the summary.

    Raises UsageError, before anything is computed, if images are to be swapped and cannot be.
    """
    from ocrtrain.evaluation.answers import QuestionRunner

    runners = {
        name: QuestionRunner(loaded.model, loaded.tokenizer, shards, decoding)
        for name, shards in sources.items()
    }
    partners = {name: runner.partners() if swap else {} for name, runner in runners.items()}
    if swap and not any(partners.values()):
        raise UsageError(f"--exchange: no two samples of {_spec(sources)} have images to swap")
    validation = validate_loaded(loaded, sources, decoding, workers=workers)
    print(validation_lines(validation))
    scores, by_source = write_answers(runners, partners, out)
    summary = {
        "checkpoint": str(loaded.checkpoint),
        "shards": _spec(sources),
        "samples": sum(map(len, sources.values())),
        "validation": validation.numbers(),
        "scores": scores.summary(),
        "sources": {name: table.summary() for name, table in by_source.items()},
    }
    file = out.with_suffix(".summary.json")
    write_json(file, summary)
    if len(sources) > 1:
        for name, table in by_source.items():
            print(f"{name}\n{table.table()}")
        print("all sources")
    print(scores.table())
    print(f"answers: {out}\nsummary: {file}")
    return summary


def _spec(sources: Mapping[str, Shards]) -> str:
    """The specs of all sources."""
    return " ".join(shards.spec for shards in sources.values())


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ocrtrain.evaluate", description=__doc__ or "")
    parser.add_argument("--checkpoint", required=True, help="a run folder, or checkpoints/step_N")
    parser.add_argument(
        "--shards", nargs="+", default=[], metavar="SPEC",
        help="shards to evaluate on: one or more specs, each with an optional slice (default: what "
        "the run validates on)",
    )  # fmt: skip
    parser.add_argument(
        "--out", default="", help="answers file, .jsonl (default: RUN/answers-step_N.jsonl)"
    )
    parser.add_argument(
        "--limit", type=int, default=0, help="use the first N samples of each spec (0: all)"
    )
    parser.add_argument("--batch", type=int, default=32, help="questions answered at a time")
    parser.add_argument("--workers", type=int, default=2, help="threads that prepare batches")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer, in tokens")
    parser.add_argument(
        "--exchange", action="store_true",
        help="ask every question again with the images of another sample (swapped)",
    )  # fmt: skip
    add_json_flag(parser)
    return parser


def default_out(loaded: TrainedModel) -> Path:
    """`RUN/answers-step_001000.jsonl`."""
    return loaded.checkpoint.parent.parent / f"answers-{loaded.checkpoint.name}.jsonl"


def validate_loaded(
    loaded: TrainedModel, sources: Mapping[str, Shards], decoding: Decoding, *, workers: int
) -> Validation:
    """Validate on each source as in training, with the settings of the checkpoint's config."""
    from ocrtrain.evaluation.validation import ValidationOptions, validate

    options = ValidationOptions(
        seq_len=loaded.config.seq_len,
        batch=loaded.config.val_batch,
        workers=workers,
        precision=decoding.precision,
    )
    return validate(loaded.model, sources, loaded.tokenizer, options)


def check_out(out: Path, asked: str) -> None:
    """Refuse to overwrite a file that is not the answers to the same samples. Raises UsageError."""
    if not out.exists():
        return
    try:
        with out.open("rb") as file:
            first = json.loads(file.readline(1 << 24) or b"{}")
        ours = isinstance(first, dict) and (not first or {"answer", "gold"} <= first.keys())
        summary = out.with_suffix(".summary.json")
        spec = json.loads(summary.read_bytes())["shards"] if summary.exists() else asked
    except (OSError, ValueError, KeyError, TypeError):
        ours, spec = False, ""
    if not ours:
        raise UsageError(f"--out {out} exists but is not an answers file; name another file")
    if spec != asked:
        raise UsageError(f"{out} contains the answers to {spec}; name another file with --out")


def write_answers(
    runners: Mapping[str, QuestionRunner], partners: Mapping[str, Partners], out: Path
) -> tuple[ScoreTable, dict[str, ScoreTable]]:
    """Ask all questions, write a line for each answer to `out`, and return the scores: of all
    sources, and of each."""
    from ocrtrain.evaluation.answers import ScoreTable

    scores, by_source = ScoreTable(), {name: ScoreTable() for name in runners}
    with atomic_file(out) as file:
        for name, questions in runners.items():
            for record in questions.records(partners[name]):
                scores.add(record)
                by_source[name].add(record)
                line = {"source": name, **record.to_json()}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return scores, by_source


def validation_lines(validation: Validation) -> str:
    """The validation as text for the console."""
    lines = [f"{name:<22} {value:.4f}" for name, value in validation.numbers().items()]
    warnings = [f"warning: {text}" for text in validation.warnings(warn_if_blind=True)]
    return "\n".join(
        [f"{sum(validation.samples.values())} samples, {validation.total.tokens:,} supervised "
         f"tokens, image gain over {validation.gain.samples} samples", *lines, *warnings]
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
