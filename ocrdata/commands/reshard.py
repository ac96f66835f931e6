"""Make new shard sets of existing ones: other sizes, merged, filtered, without repeated images,
split into parts that share no image.

    # shards of 4,096 samples, compressed
    python tools/reshard.py shards/chats.json --out packed --shard-samples 4096 --compress zstd
    # two sets in one; of both only what is well rated and not too wide
    python tools/reshard.py shards/chartqa.json shards/docvqa.json --out shards --name charts \\
        --where 'meta.relevance_min >= 3 and width <= 2000' --dedupe images
    # what would training and validation samples without a common image be?
    python tools/reshard.py shards/chartqa.json --out parts --split train=0.98,val=0.02 --dry-run

Each SPEC is one set, and may have a slice: 'shards/chartqa.json[:1000]'. NAME=SPEC gives a set
another name, for sets of the same name. The samples keep their order, their JSON and the bytes of
their images; their keys are numbered anew, and meta.origin says where they come from. If it was
stopped or killed, repeat the command.

--where is an SQL condition (DuckDB's) on key, size, turns, source, images (their number), format,
width, height (of the first image), formats, widths, heights (lists, of all images) and fields of
the meta, such as meta.page or meta."page size". A sample is kept where the condition is true. Where
it is null, because a sample has no image or lacks a field, it is left out, as in SQL, and counted:
use `meta.rating is null or meta.rating > 2` to keep it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ocrdata.commands.make_shards import add_output_flags, make, output_of, tokenizer_of
from ocrdata.conversion.open_work import open_work
from ocrdata.conversion.options import ConversionOptions
from ocrdata.conversion.rejects import report_path
from ocrdata.conversion.work_folder import differences
from ocrdata.errors import OcrError, UsageError
from ocrdata.reading.view import Shards
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.runtime.progress import to_terminal
from ocrdata.runtime.units import human_bytes
from ocrdata.sources.base import safe_name
from ocrdata.storage.hub_commits import create_repository
from ocrdata.transfer.condition import Condition
from ocrdata.transfer.inputs import Inputs, open_inputs, refuse_as_output
from ocrdata.transfer.reshard import LEFT_OUT, Recipe, ReshardSource, place_of, plan_outputs
from ocrdata.transfer.split import Parts

PROGRAM = "tools/reshard.py"

Values = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Make the new sets and print what is in them; returns the exit status. Raises OcrError."""
    typed, problems = build_parser().parse_with_problems(list(arguments))
    values = vars(typed)
    parts: Parts | None = None
    with problems:
        parts = None if values["split"] is None else Parts.parse(values["split"])
        _check_flags(values, parts)
    with problems:
        tokenizer = tokenizer_of(values["tokenizer"])
    with problems:
        if values["where"] is not None:
            Condition(values["where"])
    with problems:
        output_of({**values, "out": values["out"] or "."}, "")
    problems.raise_all()
    inputs, views = open_inputs(values["specs"])
    recipe = Recipe(
        where=values["where"] or "",
        dedupe=values["dedupe"] or "",
        parts=parts,
        seed=values["seed"],
        skip_damaged=values["bad_samples"] == "skip",
    )
    wanted = _outputs(values, inputs, parts)
    far = next(iter(wanted.values())).far
    if values["create_repo"] and far and not values["dry_run"]:
        create_repository(far)
    for part, options in wanted.items():
        _check_output(options, inputs, views, recipe, part)
    planned = {one.part: one for one in plan_outputs(inputs, views, recipe, to_terminal())}
    _check_damaged(planned.values(), inputs, values["max_reject_fraction"])
    chosen = sum(source.count() for source in planned.values())
    documents = []
    for part, options in wanted.items():
        source = planned[part]
        if values["dry_run"]:
            text, document = _forecast(source, options)
        else:
            text, document = make(source, options, tokenizer, only=values["only"])
        documents.append({**document, "left_out": source.provenance["left_out"]})
        if not values["json"]:
            print("\n".join([text, *_more(source, options, chosen)]))
    if values["json"]:
        print_json({"sets": documents})
    elif values["dry_run"]:
        print("nothing was written")
    return 0


def _check_flags(values: Values, parts: Parts | None) -> None:
    """Raise UsageError for flags that do not go together."""
    if values["part"] is not None:
        if parts is None:
            raise UsageError("--part needs --split")
        if values["part"] not in parts.fractions:
            names = ", ".join(parts.fractions)
            raise UsageError(f"--part {values['part']}: the parts of --split are {names}")
    elif parts is not None and values["only"] is not None:
        raise UsageError("--only needs --part, to say of which part of --split")


def _outputs(values: Values, inputs: Inputs, parts: Parts | None) -> dict[str, ConversionOptions]:
    """The options of each new set that is wanted, by the part of the split it is, or "". Raises
    UsageErrors."""
    names = dict.fromkeys(one.name for one in inputs.sets)
    if values["name"] is None and len(names) > 1:
        raise UsageError(f"--name is needed: one set is to be made of {', '.join(names)}")
    name = values["name"] or safe_name(inputs.sets[0].name)
    chosen = [values["part"]] if values["part"] else list(parts.fractions) if parts else [""]
    outputs = {}
    for part in chosen:
        full_name = f"{name}-{part}" if part else name
        out, far = output_of(values, full_name)
        outputs[part] = ConversionOptions(
            out=out,
            far=far,
            name=full_name,
            shard_samples=values["shard_samples"],
            workers=values["workers"],
            max_reject_fraction=values["max_reject_fraction"],
            command=command(values, inputs, part),
            compress=values["compress"],
            discard=values["discard"],
            commit_shards=values["commit_shards"],
        )
    return outputs


def _check_output(
    options: ConversionOptions, inputs: Inputs, views: Sequence[Shards], recipe: Recipe, part: str
) -> None:
    """Raise UsageError, before any index is read, for an output that is also an input, or that was
    made in another way."""
    place = options.place / options.name
    refuse_as_output(place, views)
    known = open_work(options.place, options.out, options.name).recorded_provenance()
    if known is None or options.discard:
        return
    asked = recipe.provenance(inputs, part)
    if changed := differences({name: known.get(name) for name in asked}, asked):
        raise UsageError(
            f"{place}: a set of this name was made with other settings: {'; '.join(changed)}; "
            "choose another --out or --name, or delete the set"
        )


def _check_damaged(sources: Iterable[ReshardSource], inputs: Inputs, most: float) -> None:
    """Raise OcrError if the meta of too many samples could not be read."""
    damaged = next(iter(sources)).selection.damaged
    if len(damaged) > most * inputs.samples:
        position, reason = damaged[0]
        first = place_of(*inputs.locate(position))
        raise OcrError(
            f"{len(damaged):,} of {inputs.samples:,} samples cannot be read, more than "
            f"--max-reject-fraction {most:g} allows; the first is {first.shard}: sample "
            f"{first.key}: {reason}; mend them or allow a larger fraction"
        )


def _forecast(source: ReshardSource, options: ConversionOptions) -> tuple[str, dict[str, Any]]:
    """What a set will be, as a line and as a document; `bytes` at most, before compression."""
    samples, images = source.count(), int(source.selection.images.sum())
    shards, size = len(options.layout(samples).shards), source.size(0, samples)
    place = options.place / options.name
    text = (
        f"{place}: {samples:,} samples, {images:,} images, {shards:,} "
        f"shard{'s' if shards > 1 else ''}, at most {human_bytes(size)}"
        + (" before compression" if options.compress else "")
    )
    return text, {
        "name": options.name,
        "samples": samples,
        "images": images,
        "shards": shards,
        "bytes": size,
    }


def _more(source: ReshardSource, options: ConversionOptions, chosen: int) -> list[str]:
    """Lines on what is not in the set, and on how much of all chosen samples it has."""
    lines = []
    told = {
        "where": "for which --where is false",
        "where_null": "for which --where is null",
        "duplicates": "with the images of another sample",
        "damaged": "damaged",
    }
    left_out = source.provenance["left_out"]
    if left_out:
        counts = (f"{count:,} {told[name]}" for name, count in left_out.items())
        lines.append(f"  left out  {', '.join(counts)}")
    if {"duplicates", "damaged"} & left_out.keys():
        file = report_path(options.out, options.name, LEFT_OUT).name
        lines.append(f"            see {options.place / file}")
    if source.part:
        lines.append(f"  part      {source.count() / chosen:.4f} of {chosen:,} samples")
    return lines


_IN_COMMAND = ("where", "dedupe", "split", "seed", "bad_samples", "shard_samples", "compress")
"""The flags that change the result, besides the name and the part."""


def command(values: Values, inputs: Inputs, part: str) -> str:
    """The command that recreates a set, for its manifest. It has no folders of this machine."""
    words = ["python", PROGRAM]
    words += [one.argument for one in inputs.sets]
    defaults = vars(build_parser().parse_args([".", "--out", "."]))
    for name in ("name", *_IN_COMMAND):
        if values[name] != defaults[name]:
            words += ["--" + name.replace("_", "-"), str(values[name])]
    return shlex.join([*words, *(["--part", part] if part else [])])


def build_parser() -> Parser:
    """Build the command-line parser."""
    parser = Parser(prog=PROGRAM, description=__doc__ or "")
    add, workers = parser.add_argument, min(4, os.cpu_count() or 1)
    add("specs", nargs="+", metavar="SPEC", help="the sets to read, as SPEC or NAME=SPEC")
    add_output_flags(parser, default=None)
    add("--name", help="name of the new set (default: that of the only set that is read)")
    add("--where", metavar="SQL", help="keep the samples for which this condition is true")
    add(
        "--dedupe",
        choices=("images",),
        help="leave out samples whose images, all of them in order, are those of an earlier sample "
        "that is kept; they are listed in NAME.left-out.jsonl",
    )
    add(
        "--split",
        metavar="PARTS",
        help="make several sets, such as train=0.98,val=0.02 or a=1/3,b=2/3, which are called "
        "NAME-train and NAME-val; no two have an image in common",
    )
    add("--seed", type=int, default=0, help="seed of --split (default: 0)")
    add("--part", metavar="PART", help="make only this part of --split")
    add(
        "--bad-samples",
        choices=("stop", "skip"),
        default="stop",
        help="what to do with samples that are damaged or cannot be used: stop, or leave them out "
        "and list them in NAME.rejects.jsonl (default: stop)",
    )
    add(
        "--max-reject-fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="with --bad-samples skip: fail if a larger fraction is left out (default: 0.01)",
    )
    add(
        "--shard-samples",
        type=int,
        default=1024,
        metavar="N",
        help="samples per shard (default: 1024)",
    )
    add("--compress", choices=("zstd",), help="write .tar.zst (default: .tar)")
    add(
        "--tokenizer",
        metavar="FILE",
        help="count the tokens of every sample with this tokenizer, as make_shards.py does",
    )
    add(
        "--workers",
        type=int,
        default=workers,
        metavar="N",
        help=f"worker processes; any number gives the same result (default here: {workers})",
    )
    add("--only", type=int, metavar="K", help="make only shard K, as in make_shards.py")
    add(
        "--discard",
        action="store_true",
        help="remove the shards of an unfinished set of this name that do not fit this command",
    )
    add(
        "--dry-run",
        action="store_true",
        help="say what would be written, and write nothing",
    )
    add_json_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
