"""What the weights of a new run start from: --init, --deepencoder, --fresh-gpt and the
repositories, each a source and the parts taken from it.

`--init` is a word, `pretrained` or `random`, or a path or repository. Parts that no flag names a
source for start as `--init pretrained` or `random` says, or without that word as the preset does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ocrdata.errors import SourceError, TrainError, UsageError, WeightsError
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.ocr_model import OcrModel, part_of
from ocrtrain.model.pretrained import (
    Fitting,
    Weights,
    check_weights,
    copy_weights,
    find_weights,
    shapes_of,
)
from ocrtrain.settings.checks import init_is_path
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.model_config import PARTS
from ocrtrain.settings.presets import init_word

ENCODER = ("sam", "clip", "projector")


class Start(NamedTuple):
    """A source as typed after `flag`, the weights there, and the parts to take. Those in `optional`
    are left out where their width differs."""

    flag: str
    source: str
    weights: Weights
    parts: tuple[str, ...]
    optional: tuple[str, ...] = ()


def starts(config: Config, *, near_only: bool = False) -> Iterator[Start]:
    """The sources of a config's weights, found and not yet read; with `near_only`, only those on
    this machine, without a request to the hub.

    Raises UsageError where a source has not what is to be taken from it, and what finding them
    raises.
    """
    left = set(PARTS)
    if config.deepencoder:
        with _told_of("--deepencoder"):
            weights = find_weights(config.deepencoder, encoder=True)
        yield _whole("deepencoder", config.deepencoder, weights, ENCODER)
        left -= set(ENCODER)
    if init_is_path(config) and not (near_only and not Path(config.init).expanduser().exists()):
        start = _of_init(config, tuple(part for part in PARTS if part in left))
        yield start
        left -= set(start.parts)
    elif init_is_path(config):
        return  # which parts are left is known when the repository has been asked
    if init_word(config) != "pretrained":
        return
    for part in ("sam", "clip", "gpt"):
        name = f"{part}_repo"
        source = getattr(config, name)
        if part not in left or (part == "gpt" and config.fresh_gpt):
            continue
        if not near_only or Path(source).expanduser().is_dir():
            with _told_of(flag_name(name)):
                weights = find_weights(source)
            yield _whole(name, source, weights, (part,))


@contextmanager
def _told_of(flag: str) -> Iterator[None]:
    """Errors about a source begin with its flag."""
    try:
        yield
    except (WeightsError, SourceError, TrainError) as exc:
        raise type(exc)(f"{flag} {exc}") from exc


def _whole(name: str, source: str, weights: Weights, parts: tuple[str, ...]) -> Start:
    """All of `parts`, which must be there."""
    missing = [part for part in parts if part not in weights.parts]
    if missing:
        raise WeightsError(
            f"{flag_name(name)} {source}: {weights.what} has no {', '.join(missing)}; it has "
            f"{', '.join(weights.parts)}, as {weights.names.layout.name}"
        )
    return Start(flag_name(name), source, weights, parts)


def _of_init(config: Config, left: tuple[str, ...]) -> Start:
    """What --init PATH gives: --init-parts, else all parts there that no other flag settles."""
    with _told_of("--init"):
        weights = find_weights(config.init)
    if config.init_parts:
        return _whole("init", config.init, weights, config.init_parts)
    parts = tuple(
        part for part in weights.parts if part in left and not (part == "gpt" and config.fresh_gpt)
    )
    if not parts:
        raise UsageError(
            f"--init {config.init}: has {', '.join(weights.parts)}, all of which other flags "
            "settle (--deepencoder, --fresh-gpt); leave --init out, or name its parts with "
            "--init-parts"
        )
    return Start("--init", config.init, weights, parts, optional=("projector",))


def tokenizer_of_gpt(config: Config) -> Tokenizer | None:
    """The tokenizer of the source that --init PATH takes the GPT from; None where the GPT is not
    from there, or nothing there is a tokenizer. Raises UsageError as `starts` does."""
    elsewhere = config.fresh_gpt or (config.init_parts and "gpt" not in config.init_parts)
    if not init_is_path(config) or elsewhere:
        return None
    left = tuple(part for part in PARTS if not (config.deepencoder and part in ENCODER))
    start = _of_init(config, left)
    if "gpt" not in start.parts or start.weights.tokenizer is None:
        return None
    return start.weights.tokenizer()


def check_start(config: Config) -> None:
    """Check the sources on this machine, by names, shapes and records, before anything else is
    opened. Raises UsageError or WeightsError, and what finding them raises."""
    found = list(starts(config, near_only=True))
    if not found:
        return
    model = replace(config.model, vocab_size=config.model.vocab_size or 1)
    with torch.device("meta"):
        shapes = shapes_of(OcrModel(model, image_size=config.image_size, image_token=0))
    for start in found:
        _check(start, config, shapes)


def load_start(model: OcrModel, config: Config) -> list[str]:
    """Copy the weights that a config names into `model`; returns lines that say which part comes
    from where, and what starts from random values.

    Raises UsageError or SourceError where weights cannot be found, WeightsError where they do not
    fit, TrainError for a damaged checkpoint.
    """
    lines: list[str] = []
    shapes = shapes_of(model)
    fresh = dict.fromkeys(shapes)
    for start in starts(config):
        fitting = _check(start, config, shapes)
        copy_weights(model, fitting)
        lines += _describe(start, fitting, config)
        for name in fitting.pieces:
            fresh.pop(name, None)
    _check_frozen(config, list(fresh), started=bool(lines))
    return [*lines, *_describe_fresh(shapes, list(fresh))]


def _check(start: Start, config: Config, shapes: dict[str, tuple[int, ...]]) -> Fitting:
    with _told_of(start.flag):
        return check_weights(
            start.weights, config.model, shapes, parts=start.parts, optional=start.optional
        )


def _check_frozen(config: Config, fresh: Sequence[str], *, started: bool) -> None:
    """What is frozen in the encoder would stay random where the sources do not give it."""
    for part in ("sam", "clip") if started else ():
        random = [name for name in fresh if part_of(name) == part]
        if part in config.freeze and random:
            raise UsageError(
                f"--freeze {part}: {len(random)} of its tensors start from random values "
                f"({', '.join(random[:2])}); give an encoder that has them with --deepencoder or "
                "--init (no hub checkpoint of SAM has the two convolutions after it), or do not "
                f"freeze {part}"
            )


def _describe(start: Start, fitting: Fitting, config: Config) -> Iterator[str]:
    """What is taken of a source, and what is not."""
    weights = start.weights
    verified = ", verified" if weights.verified else ""
    yield (
        f"weights of {_listed(fitting.parts)} ({len(fitting.pieces)} tensors) from "
        f"{weights.what}{verified}"
    )
    if "sam" in fitting.parts and weights.image_size not in (0, config.image_size):
        yield (
            f"  made for images of {weights.image_size} px, used at {config.image_size} px: "
            "positions are interpolated"
        )
    for remark in fitting.remarks:
        yield f"  {remark}"
    not_asked = [part for part in weights.parts if part not in start.parts]
    if not_asked:
        hint = " (--no-fresh-gpt takes the GPT)" * ("gpt" in not_asked and config.fresh_gpt)
        yield f"  not taken: its {_listed(not_asked)}, which the flags do not ask for{hint}"
    for reason, names in weights.names.unused.items():
        shown = names[0] + ", ..." * (len(names) > 1)
        yield f"  not taken: {len(names)} tensors ({shown}): {reason}"
    if weights.beside:
        yield f"  not taken: what else the file holds, {', '.join(weights.beside)}"


def _describe_fresh(shapes: dict[str, tuple[int, ...]], fresh: Sequence[str]) -> list[str]:
    """The parts, or tensors of parts, that no source gave."""
    counts = []
    for part in PARTS:
        all_of = [name for name in shapes if part_of(name) == part]
        random = [name for name in fresh if part_of(name) == part]
        if len(random) == len(all_of):
            counts.append(part)
        elif random:
            names = ", ".join(random[:2]) + ", ..." * (len(random) > 2)
            counts.append(f"{len(random)} of {len(all_of)} tensors of {part} ({names})")
    return [f"random initial weights: {_listed(counts)}"] if counts else []


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]
