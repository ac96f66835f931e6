"""The kinds of data set that `make_shards` knows: one entry for each, with its flags, the default
name of its shards, and how its source is made. A new kind is one entry here.

Values are those of the command line by flag name, with underscores for dashes; a flag that was not
given is None or its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrdata.sources import finevision, smoltalk
from ocrdata.sources.base import Source, safe_name
from ocrdata.sources.jsonl import JsonlSource

SYNTHETIC_ROWS = 10_240
"""Rows of a synthetic set where neither --stop nor --limit says how many."""

Values = Mapping[str, Any]
Recorded = Mapping[str, Any]
"""The provenance of an earlier conversion of the same name; {} where there is none."""


@dataclass(frozen=True)
class Flag:
    """One flag of a kind. `default` None means that it has none."""

    name: str
    help: str
    metavar: str | None = None
    kind: type = str
    default: object = None
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceKind:
    """A kind of data set: what it is in a few words, its flags, name and source."""

    text: str
    flags: tuple[Flag, ...]
    default_name: Callable[[Values], str]
    make: Callable[[Values, Recorded], Source]


def _hub_flags(repository: str) -> tuple[Flag, ...]:
    return (
        Flag("repo", f"another repository than {repository}", "OWNER/NAME"),
        Flag(
            "revision",
            "branch, tag or commit; the commit it stands for at the first start is recorded and "
            "kept (default: main)",
        ),
    )


def _finevision(values: Values, recorded: Recorded) -> Source:
    return finevision.finevision(
        values.get("subset") or "chartqa",
        repository=values["repo"] or finevision.REPOSITORY,
        revision=values["revision"] or "main",
        recorded=recorded,
    )


def _smoltalk(values: Values, recorded: Recorded) -> Source:
    return smoltalk.smoltalk(
        values["config"],
        values["split"],
        repository=values["repo"] or smoltalk.REPOSITORY,
        revision=values["revision"] or "main",
        recorded=recorded,
    )


def _jsonl(values: Values, _: Recorded) -> Source:
    return JsonlSource(Path(values["path"]), Path(values["images"]) if values["images"] else None)


def _synthetic_rows(values: Values) -> int:
    """Synthetic rows never run out: there are as many as are asked for."""
    return int(values["stop"] or values["start"] + (values["limit"] or SYNTHETIC_ROWS))


def _charts(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.charts import ChartsSource

    return ChartsSource(_synthetic_rows(values), seed=values["seed"])


def _sums(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.sums import SumsSource

    return SumsSource(_synthetic_rows(values), seed=values["seed"])


_SUBSET = Flag(
    "subset",
    "its name on the hub; the shards are named after it, each run of characters other than "
    "letters, digits, _ and - replaced by one -",
    required=True,
)
_SEED = Flag("seed", "another seed draws other samples (default: 0)", kind=int, default=0)

REGISTRY = {
    "chartqa": SourceKind(
        "charts with questions: FineVision's subset chartqa",
        _hub_flags(finevision.REPOSITORY),
        lambda _: "chartqa",
        _finevision,
    ),
    "finevision": SourceKind(
        "any subset of FineVision, or of a repository with its columns",
        (*_hub_flags(finevision.REPOSITORY), _SUBSET),
        lambda values: safe_name(values["subset"]),
        _finevision,
    ),
    "smoltalk": SourceKind(
        "conversations without images: a repository with a `messages` column",
        (
            *_hub_flags(smoltalk.REPOSITORY),
            Flag("config", "config of the repository (`all` for HuggingFaceTB/smoltalk)"),
            Flag("split", "train (default) or test", default="train"),
        ),
        lambda values: smoltalk.default_name(values["config"], values["split"]),
        _smoltalk,
    ),
    "jsonl": SourceKind(
        "your own file of conversations, with a folder of images",
        (
            Flag(
                "path",
                "JSON Lines or one JSON array; a record is {messages: [{role, content}]}, "
                "{texts: [{user, assistant}]}, {prompt, answer}, or a bare list of messages, with "
                "its images under `image` or `images`",
                "FILE",
                required=True,
            ),
            Flag(
                "images",
                "folder that image names are relative to (default: the folder of FILE)",
                "DIR",
            ),
        ),
        lambda values: safe_name(Path(values["path"]).stem),
        _jsonl,
    ),
    "charts": SourceKind(
        "synthetic charts with questions of ChartQA's kinds, seeded",
        (_SEED,),
        lambda _: "charts",
        _charts,
    ),
    "sums": SourceKind(
        "synthetic conversations without images, seeded",
        (_SEED,),
        lambda _: "sums",
        _sums,
    ),
}
"""By the word that `make_shards` takes."""
