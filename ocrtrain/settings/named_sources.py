"""The flags of named sources: what to train on, with which weights, and what to validate on.

    --source charts=shards/chartqa.json[:18000]:3 --source chats=shards/chats.json:1/2
    --source-at 1000:charts=1,chats=1
    --val-source charts=shards/chartqa.json[18000:18100]
    --image-size-of charts=512

A name ends at the first "=", a weight begins after the last ":". Between them is a shard spec, with
any characters. Weights are relative to each other; a source of weight 0 waits for a --source-at,
which makes a curriculum. No file is opened here. It imports `images` of `ocrdata` for how an image
is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageMode, parse_mode
from ocrdata.planning.choices import Weight
from ocrtrain.settings.image_slots import image_slots

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WEIGHT = re.compile(r"[0-9]{1,18}([./][0-9]{1,18})?")
EXAMPLE = "charts=shards/charts.json[:900]:3"


class NamedSource(NamedTuple):
    """A source to train on: a weight, or weights with the steps they start at."""

    name: str
    spec: str
    weight: Weight


def parse_sources(given: Sequence[str], changes: Sequence[str] = ()) -> tuple[NamedSource, ...]:
    """The sources of --source and --source-at. Raises UsageError that names the flag and the
    rule."""
    found: dict[str, tuple[str, Fraction]] = {}
    for text in given:
        name, rest = _split_name("--source", text, EXAMPLE)
        spec, colon, weight = rest.rpartition(":")
        if not colon or not spec or "]" in weight:
            raise UsageError(f"--source {text}: the weight is missing; write it as in {EXAMPLE}")
        if name in found:
            raise UsageError(
                f"--source {name} is given twice, with {found[name][0]} and with {spec}; choose "
                "another name for one, or quote a spec in braces so that the shell leaves it alone"
            )
        found[name] = spec, _weight("--source", text, weight)
    weights = {name: [(0, weight)] for name, (_, weight) in found.items()}
    last = 0
    for text in changes:
        last = _change(text, weights, last)
    for name, values in weights.items():
        if not any(value for _, value in values):
            raise UsageError(
                f"--source {name}: its weight is 0 throughout; give it one above 0 here or in "
                "--source-at, or leave the source out"
            )
    if found and not any(weight for _, weight in found.values()):
        raise UsageError("--source: all weights are 0 at step 0; a source must have one above 0")
    return tuple(
        NamedSource(name, spec, tuple(weights[name]) if len(weights[name]) > 1 else weight)
        for name, (spec, weight) in found.items()
    )


def _change(text: str, weights: dict[str, list[tuple[int, Fraction]]], last: int) -> int:
    """Add the weights that a --source-at sets to `weights`; returns its step."""
    rule = "write STEP:NAME=WEIGHT,NAME=WEIGHT with increasing steps from 1 on, as in 500:charts=1"
    step, _, pairs = text.partition(":")
    if not re.fullmatch("[0-9]{1,18}", step) or int(step) <= last:
        raise UsageError(f"--source-at {text}: {rule}")
    changed = set()
    for pair in pairs.split(","):
        name, _, weight = pair.partition("=")
        if name not in weights:
            raise UsageError(
                f"--source-at {text}: {name!r} is not the name of a --source "
                f"({', '.join(weights)}); {rule}"
            )
        if name in changed:
            raise UsageError(f"--source-at {text}: {name} is given twice")
        changed.add(name)
        weights[name].append((int(step), _weight("--source-at", text, weight)))
    if not any(found[-1][1] for found in weights.values()):
        raise UsageError(f"--source-at {text}: from step {step} on all weights are 0")
    return int(step)


def parse_specs(
    flag: str,
    given: Sequence[str],
    sources: Sequence[NamedSource],
    *,
    example: str = "charts=shards/charts.json[900:]",
    what: str = "spec",
) -> dict[str, str]:
    """The specs by name that a flag gives as NAME=SPEC, or `what` else it gives. Raises UsageError
    for a name that no source has."""
    names = [source.name for source in sources]
    found: dict[str, str] = {}
    for text in given:
        name, spec = _split_name(flag, text, example)
        if name not in names:
            raise UsageError(
                f"{flag} {text}: {name} is not the name of a --source ({', '.join(names)})"
            )
        if name in found:
            raise UsageError(f"{flag} {name} is given twice; name one {what} for it")
        found[name] = spec
    return found


def parse_modes(given: Sequence[str], sources: Sequence[NamedSource]) -> dict[str, ImageMode]:
    """How images are shown, by name of their source, as --image-size-of gives it. Raises UsageError
    that names the flag and the rule."""
    flag = "--image-size-of"
    found = {}
    texts = parse_specs(flag, given, sources, example="charts=256", what="size")
    for name, text in texts.items():
        try:
            found[name] = checked_mode(text)
        except UsageError as exc:
            raise UsageError(f"{flag} {name}={text}: {exc}") from exc
    return found


def checked_mode(text: str) -> ImageMode:
    """`parse_mode`, of sizes that the model takes. Raises UsageError."""
    mode = parse_mode(text)
    for size in (mode.size, mode.tile):
        if size:
            image_slots(size)  # raises for a wrong size
    if mode.tile:
        raise UsageError("tiles are not supported; give the size of a square view")
    return mode


def with_spec(source: str, spec: str) -> str:
    """A --source with another spec, its name and weight unchanged."""
    return f"{source.partition('=')[0]}={spec}:{source.rpartition(':')[2]}"


def _split_name(flag: str, text: str, example: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not rest or not _NAME.fullmatch(name):
        raise UsageError(
            f"{flag} {text}: does not begin with NAME=, a name of letters, digits, '_', '-' and "
            f"'.'; write it as in {example}"
        )
    return name, rest


def _weight(flag: str, text: str, weight: str) -> Fraction:
    """A weight of at least 0."""
    try:
        if not _WEIGHT.fullmatch(weight):
            raise ValueError("neither a number nor a fraction")
        return Fraction(weight)
    except (ValueError, ZeroDivisionError) as exc:
        raise UsageError(
            f"{flag} {text}: {weight!r} is not a weight; write a number or a fraction above 0, "
            "such as 3, 0.5 or 10/28"
        ) from exc
