"""Evaluate a trained model on a slice: does it answer, and does it look at the images?

    python -m ocrtrain.evaluate --checkpoint runs/stage1-full \\
        --shards 'shards/chartqa-<000..017>.tar[18000:18100]' --exchange

Without --shards: on what the run validates on. Several specs, or sources of the run, are evaluated
one by one and together. Prints the validation loss, the image gain and a table of scores by kind of
question. Writes every answer as a line of JSON, with a summary file beside it. Each turn is asked
alone, about the images it shows (or, if it shows none, all that its sample showed before), so other
turns cannot help; with --history, after the turns before it and their answers. With --exchange
every question is asked again about the images of another sample that has a question of the same
kind: an answer that is still correct was not read from the image. Of samples with identical images
only the first is swapped, and the report says which questions were answered without looking.
Samples of a published benchmark (docs/evaluation.md) are scored by its own measure, in a table with
confidence intervals. OUT.worst.html shows the worst answers with their images.

Ctrl-C or SIGTERM stops it, and the answers so far are kept in OUT.partial.jsonl: the same command
goes on from there. With --json the summary, the contents of its file, is the document.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageMode
from ocrdata.reading.view import Shards
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run, text_aside
from ocrdata.runtime.progress import progress_bar
from ocrdata.storage.files import atomic_file, make_folder, write_json
from ocrdata.storage.locks import Lock
from ocrdata.storage.sealed import canonical, digest_of
from ocrtrain.settings.named_sources import checked_mode

# What imports torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from ocrtrain.evaluation.answers import Asking, Partners, QuestionRunner, ScoreTable
    from ocrtrain.evaluation.answers_file import AnswersFile
    from ocrtrain.evaluation.benchmarks.table import BenchmarkTable
    from ocrtrain.evaluation.generation import Decoding
    from ocrtrain.evaluation.validation import Validation
    from ocrtrain.run.trained import TrainedModel


class Stopped(KeyboardInterrupt):
    """Ctrl-C or a signal that asks to stop; `kept` says what is kept of the work."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.kept = number, "no answer had been given"

    @property
    def cause(self) -> str:
        """What to call it."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


@contextmanager
def stops() -> Iterator[None]:
    """In this context Ctrl-C, SIGTERM and SIGUSR1 (Slurm's warning) raise Stopped, once; after
    that they do what they did before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise Stopped(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        restore()


def main(arguments: Sequence[str]) -> int:
    """Evaluate, print, write; returns the exit status: of a stop, 128 and the signal's number."""
    try:
        with stops():
            return _main(arguments)
    except Stopped as exc:
        print(f"stopped by {exc.cause}: {exc.kept}", file=sys.stderr)
        return 128 + exc.number


def _main(arguments: Sequence[str]) -> int:
    args, problems = build_parser().parse_with_problems(list(arguments))
    from ocrtrain.data.sources import open_each, open_sources
    from ocrtrain.evaluation.generation import Decoding
    from ocrtrain.model.device import autocast_type, resolve_device
    from ocrtrain.run.trained import check_path, load_for_inference

    with problems:
        decoding = Decoding(args.max_new_tokens, args.batch, stop_repeats=args.stop_repeats)
    with problems:
        device = resolve_device(args.device)
    for check in (_check_numbers, _check_out_name, _check_benchmark):
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
    modes = {name: loaded.image_mode(args.image_size) for name in sources}
    if not sources:
        sources = open_sources(loaded.config.without_cache()).validation
        own = loaded.config.image_mode
        modes = {n: checked_mode(args.image_size) if args.image_size else own(n) for n in sources}
    if not sources:
        raise UsageError(f"--shards is missing: {loaded.checkpoint} names no validation samples")
    sources = {name: shards[: args.limit or None] for name, shards in sources.items()}
    out = Path(args.out) if args.out else default_out(loaded)
    make_folder(out.parent)
    decoding = replace(decoding, precision=autocast_type(loaded.config.precision, device))
    with Lock(out.with_name(f".{out.name}.lock"), f"--out {out}"), text_aside(args.json):
        check_out(out, _spec(sources))
        options = EvaluationOptions(
            decoding,
            args.workers,
            modes,
            swap=args.exchange,
            history=args.history,
            instruction=args.instruction,
            benchmark=args.benchmark,
        )
        summary = evaluate(loaded, sources, out, options)
    if args.json:
        print_json(summary)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    if args.limit < 0 or args.workers < 0:
        raise UsageError("--limit and --workers must not be negative")


def _check_out_name(args: argparse.Namespace) -> None:
    if args.out and Path(args.out).is_dir():
        raise UsageError(f"--out {args.out} is a folder; name a file in it")
    if args.out.endswith(".partial.jsonl"):
        raise UsageError(f"--out {args.out}: .partial.jsonl is the name of unfinished answers")
    if args.out and Path(args.out).suffix != ".jsonl":
        raise UsageError(f"--out {args.out}: the name must end in .jsonl, such as answers.jsonl")


def _check_benchmark(args: argparse.Namespace) -> None:
    from ocrtrain.evaluation.answers import NO_BENCHMARK
    from ocrtrain.evaluation.benchmarks.registry import BENCHMARKS

    known = (*BENCHMARKS, NO_BENCHMARK)
    if args.benchmark and args.benchmark not in known:
        raise UsageError(f"--benchmark {args.benchmark}: unknown; known are {', '.join(known)}")


@dataclass(frozen=True)
class EvaluationOptions:
    """How to answer, threads that prepare batches, whether to ask again with swapped images,
    whether turns are asked with their history, what is put after each question, and the benchmark
    that measures the answers, if it is not that which the samples name; `modes` says how the images
    of each source are shown."""

    decoding: Decoding
    workers: int
    modes: Mapping[str, ImageMode]
    swap: bool = False
    history: bool = False
    instruction: str = ""
    benchmark: str = ""

    @property
    def asking(self) -> Asking:
        """How samples become questions."""
        from ocrtrain.evaluation.answers import Asking, turns_of, turns_with_history

        turns = turns_with_history if self.history else turns_of
        return Asking(turns, self.instruction, self.benchmark)


def evaluate(
    loaded: TrainedModel, sources: Mapping[str, Shards], out: Path, options: EvaluationOptions
) -> dict[str, Any]:
    """Validate, ask, print, and write answers and summary; returns the summary.

    Goes on from the answers that a stopped evaluation left. Raises UsageError, before anything is
    computed, if these are of another one, or if images are to be swapped and cannot be.
    """
    from ocrtrain.evaluation.answers import QuestionRunner
    from ocrtrain.evaluation.answers_file import AnswersFile
    from ocrtrain.evaluation.looking import answered_without_looking, looking_lines

    decoding = options.decoding
    asking = options.asking
    runners = {
        name: QuestionRunner(
            loaded.model,
            loaded.tokenizer,
            shards,
            decoding,
            asking=asking,
            mode=options.modes[name],
        )
        for name, shards in sources.items()
    }
    partners = {name: runner.partners() if options.swap else {} for name, runner in runners.items()}
    if options.swap and not any(partners.values()):
        raise UsageError(f"--exchange: no two samples of {_spec(sources)} have images to swap")
    identity = what_answers_depend_on(loaded, sources, options)
    with AnswersFile(out, identity) as file:
        if file.done:
            print(f"going on from {_done(file, sources)}, which are in {file.path}")
        if file.validation is None:
            file.keep_validation(_validation(loaded, runners, options))
        validation = file.validation or {}
        print(validation["lines"], flush=True)
        try:
            ask_all(runners, partners, file)
        except Stopped as exc:
            if file.done:
                exc.kept = (
                    f"{_done(file, sources)} are kept in {file.path}; the same command goes on"
                )
            raise
        file.finish()
        scores, by_source = score_tables(file, sources)
        benchmarks = benchmark_tables(file)
        looking = answered_without_looking(file.answers())
        summary = {
            "checkpoint": str(loaded.checkpoint),
            "shards": _spec(sources),
            "samples": sum(map(len, sources.values())),
            "validation": validation["numbers"],
            "scores": scores.summary(),
            "sources": {name: table.summary() for name, table in by_source.items()},
            "benchmarks": [
                {"source": source, **table.summary()} for (source, _), table in benchmarks.items()
            ],
            "prompt_suffix": options.instruction,
        }
        if looking is not None:
            summary["without_looking"] = looking
        summary_file, page = out.with_suffix(".summary.json"), out.with_suffix(".worst.html")
        write_worst(page, file, sources, options)
        write_json(summary_file, summary)
        file.remove()
    for (name, _), benchmark in benchmarks.items():
        print(f"{name}: {benchmark.table()}\n")
    others = {name: table for name, table in by_source.items() if table.has_others}
    if others and len(by_source) > 1:
        for name, table in others.items():
            print(f"{name}\n{table.table()}")
        print("all sources")
    if others:
        print(scores.table())
    if looking is not None:
        print(looking_lines(looking))
    print(f"answers: {out}\nsummary: {summary_file}\nworst answers: {page}")
    return summary


def what_answers_depend_on(
    loaded: TrainedModel, sources: Mapping[str, Shards], options: EvaluationOptions
) -> dict[str, Any]:
    """By name: the weights, the samples, and how answers are decoded. Batch sizes and devices are
    left out, which change no more than the last bits of sums."""

    samples = [[name, shards.digest] for name, shards in sources.items()]
    decoding, usual = options.decoding, ImageMode(loaded.config.image_size)
    sizes = {name: str(mode) for name, mode in options.modes.items() if mode != usual}
    return {
        "checkpoint": loaded.checkpoint.name,
        "weights": digest_of(loaded.digests.read_bytes()),
        "shards": _spec(sources),
        "samples": digest_of(canonical(samples)),
        "--max-new-tokens": decoding.max_new_tokens,
        "--stop-repeats": decoding.stop_repeats,
        "precision": str(decoding.precision or "fp32").removeprefix("torch."),
        "--exchange": options.swap,
        "--history": options.history,
        **({"image sizes": sizes} if sizes else {}),
        **({"--instruction": options.instruction} if options.instruction else {}),
        **({"--benchmark": options.benchmark} if options.benchmark else {}),
    }


def _done(file: AnswersFile, sources: Mapping[str, Shards]) -> str:
    """How much has been asked."""
    total = sum(map(len, sources.values()))
    return f"the answers for {sum(file.done.values()):,} of {total:,} samples"


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
    parser.add_argument(
        "--image-size", default="",
        help="side of the square that images are letterboxed to, in px (default: that of their "
        "source in the run; with --shards, the run's)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, help="questions answered at a time")
    parser.add_argument("--workers", type=int, default=2, help="threads that prepare batches")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer, in tokens")
    parser.add_argument(
        "--stop-repeats", type=int, default=256, metavar="N",
        help="stop an answer whose last N tokens are one sequence over and over, and keep that "
        "sequence once (0: never)",
    )  # fmt: skip
    parser.add_argument(
        "--history", action="store_true",
        help="ask every turn after the turns before it, with their images and gold answers",
    )  # fmt: skip
    parser.add_argument(
        "--instruction", default="", metavar="TEXT",
        help="put TEXT after every question, on a line of its own; scores depend on it",
    )  # fmt: skip
    parser.add_argument(
        "--benchmark", default="", metavar="NAME",
        help="score the answers by this benchmark, or by none, whatever the samples say (default: "
        "the benchmark that each sample belongs to, if it belongs to one)",
    )  # fmt: skip
    parser.add_argument(
        "--exchange", action="store_true",
        help="ask every question again with the images of another sample (swapped)",
    )  # fmt: skip
    add_json_flag(parser)
    return parser


def default_out(loaded: TrainedModel) -> Path:
    """`RUN/answers-step_001000.jsonl`."""
    return loaded.folder / f"answers-{loaded.checkpoint.name}.jsonl"


def validate_loaded(
    loaded: TrainedModel, sources: Mapping[str, Shards], options: EvaluationOptions
) -> Validation:
    """Validate on each source as in training, with the settings of the checkpoint's config."""
    from ocrtrain.evaluation.validation import ValidationOptions, validate

    settings = ValidationOptions(
        seq_len=loaded.config.seq_len,
        batch=loaded.config.val_batch,
        workers=options.workers,
        precision=options.decoding.precision,
        modes=options.modes,
    )
    return validate(loaded.model, sources, loaded.tokenizer, settings)


def _validation(
    loaded: TrainedModel, runners: Mapping[str, QuestionRunner], options: EvaluationOptions
) -> dict[str, Any]:
    """The validation's numbers, and its text; sources whose answers are no text to be read are left
    out of it."""
    sources = {name: one.shards for name, one in runners.items() if one.has_gold_text}
    left = [name for name in runners if name not in sources]
    lines = [f"{name}: no loss, its samples have tests in place of a text" for name in left]
    if not sources:
        return {"numbers": {}, "lines": "\n".join(lines)}
    found = validate_loaded(loaded, sources, options)
    return {"numbers": found.numbers(), "lines": "\n".join([validation_lines(found), *lines])}


def benchmark_tables(file: AnswersFile) -> dict[tuple[str, str], BenchmarkTable]:
    """By source and benchmark, the answers that were measured by one."""
    from ocrtrain.evaluation.benchmarks.registry import BENCHMARKS
    from ocrtrain.evaluation.benchmarks.table import BenchmarkTable

    tables: dict[tuple[str, str], BenchmarkTable] = {}
    for line in file.answers():
        if "benchmark" in line:
            name = line["benchmark"]["name"]
            at = (line["source"], name)
            if at not in tables:
                tables[at] = BenchmarkTable(BENCHMARKS[name])
            tables[at].add(line)
    return tables


def write_worst(
    page: Path, file: AnswersFile, sources: Mapping[str, Shards], options: EvaluationOptions
) -> None:
    """Write the page of the worst answers. Raises DiskError."""
    from ocrtrain.evaluation.worst import worst_answers
    from ocrtrain.inspection.pages.worst import worst_page

    cases = worst_answers(file.answers())
    with atomic_file(page) as out:
        for piece in worst_page(cases, sources, str(file.out), options.instruction):
            out.write(piece.encode())


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


def ask_all(
    runners: Mapping[str, QuestionRunner], partners: Mapping[str, Partners], file: AnswersFile
) -> None:
    """Ask all questions that have no answer in `file` yet, and keep the answers there."""
    total = sum(len(runner.shards) for runner in runners.values())
    done = sum(file.done.values())
    with progress_bar(total, " samples", description="asking", done=done, delay=1) as bar:
        for name, runner in runners.items():
            start = file.done.get(name, 0)
            for stop, records in runner.groups(partners[name], start):
                lines = ({"source": name, **record.to_json()} for record in records)
                file.keep(name, stop, lines)
                bar.update(stop - start)
                start = stop


def score_tables(
    file: AnswersFile, sources: Mapping[str, Shards]
) -> tuple[ScoreTable, dict[str, ScoreTable]]:
    """The scores of the answers in `file`: of all sources, and of each."""
    from ocrtrain.evaluation.answers import ScoreTable

    scores, by_source = ScoreTable(), {name: ScoreTable() for name in sources}
    for line in file.answers():
        scores.add(line)
        by_source[line["source"]].add(line)
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
