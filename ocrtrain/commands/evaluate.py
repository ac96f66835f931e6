"""Evaluate a trained model on a slice: does it answer, and does it look at the images?

    python -m ocrtrain.evaluate --checkpoint runs/stage1-full \\
        --shards 'shards/chartqa-<000..017>.tar[18000:18100]' --exchange

Prints the validation loss, the image gain and a table of scores by kind of question, and writes
every answer as a line of JSON, and the summary beside it. Each turn is asked alone, as the first
question about the images of its row: what the row's other turns say does not help. With
--exchange every question is asked once more about the images of another row that has a question
of the same kind: what is still right then was not read. Of rows with the same images the first
takes part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocrdata.errors import UsageError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.storage.files import atomic_file, make_folder, write_json
from ocrdata.storage.locks import Lock
from ocrtrain.evaluation.answers import Partners, QuestionRunner, ScoreTable
from ocrtrain.evaluation.generation import Decoding
from ocrtrain.evaluation.validation import Validation, ValidationOptions, validate
from ocrtrain.model.device import autocast_type, resolve_device
from ocrtrain.run.trained import TrainedModel, load_for_inference


def main(arguments: Sequence[str]) -> int:
    """Evaluate, print, write; returns the exit status."""
    parser = build_parser()
    asked = parser.parse_args(list(arguments))
    decoding = Decoding(asked.max_new_tokens, asked.batch)
    device = resolve_device(asked.device)
    shards = open_shards(asked.shards)
    if asked.limit < 0 or asked.workers < 0:
        raise UsageError("--limit and --workers must not be negative")
    if asked.out and Path(asked.out).is_dir():
        raise UsageError(f"--out {asked.out} is a folder; name a file in it")
    if asked.out and Path(asked.out).suffix != ".jsonl":
        raise UsageError(f"--out {asked.out}: answers are JSON lines, name it so: answers.jsonl")
    shards = shards[: asked.limit] if asked.limit else shards
    if not len(shards):
        raise UsageError(f"--shards {' '.join(asked.shards)} holds no samples")
    loaded = load_for_inference(Path(asked.checkpoint), device)
    out = Path(asked.out) if asked.out else default_out(loaded)
    make_folder(out.parent)
    decoding = replace(decoding, precision=autocast_type(loaded.config.precision, device))
    with Lock(out.with_name(f".{out.name}.lock"), f"--out {out}"):
        refuse_other(out, shards)
        return evaluate(
            loaded, shards, out, decoding=decoding, workers=asked.workers, exchange=asked.exchange
        )


def evaluate(
    loaded: TrainedModel,
    shards: Shards,
    out: Path,
    *,
    decoding: Decoding,
    workers: int,
    exchange: bool,
) -> int:
    """Validate, ask, and write answers and summary; returns the exit status.

    Raises UsageError, before anything is computed, where images are to be exchanged and cannot.
    """
    asker = QuestionRunner(loaded.model, loaded.tokenizer, shards, decoding)
    partners = asker.partners() if exchange else {}
    if exchange and not partners:
        raise UsageError(f"--exchange: no two rows of {shards.spec} have images to exchange")
    validation = validate_loaded(loaded, shards, decoding, workers=workers)
    print(validation_lines(validation))
    tally = write_answers(asker, partners, out)
    print(tally.table())
    summary = out.with_suffix(".summary.json")
    write_json(
        summary,
        {
            "checkpoint": str(loaded.checkpoint),
            "shards": shards.spec,
            "samples": len(shards),
            "validation": validation.numbers(),
            "scores": tally.summary(),
        },
    )
    print(f"answers: {out}\nsummary: {summary}")
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ocrtrain.evaluate", description=__doc__ or "")
    parser.add_argument("--checkpoint", required=True, help="a run folder, or checkpoints/step_N")
    parser.add_argument("--shards", required=True, nargs="+", help="a shard spec, with a slice")
    parser.add_argument("--out", default="", help="answers file, .jsonl (default: in the run)")
    parser.add_argument("--limit", type=int, default=0, help="first so many samples (0: all)")
    parser.add_argument("--batch", type=int, default=32, help="questions answered at a time")
    parser.add_argument("--workers", type=int, default=2, help="threads that make batches ahead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer, tokens")
    parser.add_argument(
        "--exchange", action="store_true", help="ask again about other rows' images"
    )
    return parser


def default_out(loaded: TrainedModel) -> Path:
    """`RUN/answers-step_001000.jsonl`."""
    return loaded.checkpoint.parent.parent / f"answers-{loaded.checkpoint.name}.jsonl"


def validate_loaded(
    loaded: TrainedModel, shards: Shards, decoding: Decoding, *, workers: int
) -> Validation:
    """The validation of training, on `shards`, as the checkpoint's config has it."""
    settings = ValidationOptions(
        seq_len=loaded.config.seq_len,
        batch=loaded.config.val_batch,
        workers=workers,
        precision=decoding.precision,
    )
    return validate(loaded.model, {shards.source_name: shards}, loaded.tokenizer, settings)


def refuse_other(out: Path, shards: Shards) -> None:
    """Whether a file is there that holds anything but answers to these very samples. Raises
    UsageError."""
    if not out.exists():
        return
    try:
        with out.open("rb") as file:
            first = json.loads(file.readline(1 << 24) or b"{}")
        ours = isinstance(first, dict) and (not first or {"answer", "gold"} <= first.keys())
        summary = out.with_suffix(".summary.json")
        spec = json.loads(summary.read_bytes())["shards"] if summary.exists() else shards.spec
    except (OSError, ValueError, KeyError, TypeError):
        ours, spec = False, ""
    if not ours:
        raise UsageError(f"--out {out} is there and holds no answers; name another file")
    if spec != shards.spec:
        raise UsageError(f"{out} holds the answers to {spec}; name another file with --out")


def write_answers(asker: QuestionRunner, partners: Partners, out: Path) -> ScoreTable:
    """Ask every turn of all rows, write a line for each answer to `out`, and return the scores."""
    tally = ScoreTable()
    with atomic_file(out) as file:
        for record in asker.records(partners):
            tally.add(record)
            file.write(json.dumps(record.to_json(), ensure_ascii=False).encode() + b"\n")
    return tally


def validation_lines(validation: Validation) -> str:
    """The validation for a person."""
    lines = [f"{name:<22} {value:.4f}" for name, value in validation.numbers().items()]
    warnings = [f"warning: {text}" for text in validation.warnings(blind_matters=True)]
    return "\n".join(
        [f"{sum(validation.samples.values())} samples, {validation.total.tokens:,} supervised "
         f"tokens, image gain over {validation.gain.samples} samples", *lines, *warnings]
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
