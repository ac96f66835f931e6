"""Command-line flags, generated from the fields of `Config` and `ModelConfig`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, get_type_hints

from ocrdata.runtime.cli import Parser
from ocrtrain.settings.config import CHOICES, Config, ModelConfig, flag_name

Preset = Callable[[str], Config]
"""Name of a preset -> complete config."""


class ParsedFlags(NamedTuple):
    """A parsed command line: the config, the fields set on it by a flag, and --resume."""

    config: Config
    given: frozenset[str]
    resume: bool


def parse(arguments: Sequence[str], preset: Preset, *, prog: str, description: str) -> ParsedFlags:
    """Parse a stage's command line.

    A wrong flag or value prints one line and exits with status 2. Raises UsageError where values
    do not fit together.
    """
    parser = Parser(prog=prog, description=description)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest complete checkpoint in --out",
    )
    for kind, title in ((Config, "run"), (ModelConfig, "model sizes")):
        group = parser.add_argument_group(title)
        types = get_type_hints(kind)
        for item in dataclasses.fields(kind):
            if item.name != "model":
                _add_flag(group, item, types[item.name])
    typed = vars(parser.parse_args(list(arguments)))
    resume = bool(typed.pop("resume"))
    given = {name: value for name, value in typed.items() if value is not None}
    return ParsedFlags(
        override(preset(given.get("preset", "full")), given), frozenset(given), resume
    )


def override(config: Config, given: dict[str, Any]) -> Config:
    """`config` with the named fields replaced, fields of `config.model` included."""
    model_names = {item.name for item in dataclasses.fields(ModelConfig)}
    model = {name: value for name, value in given.items() if name in model_names}
    run = {name: value for name, value in given.items() if name not in model_names}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model), **run)


def _add_flag(group: argparse._ArgumentGroup, item: dataclasses.Field[Any], kind: Any) -> None:
    flag, text = flag_name(item.name), item.metadata["help"].replace("%", "%%")
    if kind is bool:
        group.add_argument(flag, help=text, action=argparse.BooleanOptionalAction, default=None)
        return
    many = kind in (tuple[str, ...], tuple[int, ...])
    elements: dict[Any, Callable[[str], Any]] = {
        tuple[str, ...]: str,
        tuple[int, ...]: int,
        Fraction: _fraction,
    }
    group.add_argument(
        flag,
        help=text,
        type=elements.get(kind, kind),
        nargs="*" if many else None,
        action=_StoreTuple if many else "store",
        choices=None if many else CHOICES.get(item.name),
        metavar=None if item.name in CHOICES and not many else _metavar(kind),
    )


class _StoreTuple(argparse.Action):
    """Stores the values of a flag as a tuple."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, tuple(values))


def _fraction(text: str) -> Fraction:
    """'10/28', '0.3' or '1' as an exact number."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"invalid fraction {text!r}; write one such as 10/28 or 0.3"
        ) from None


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X", Fraction: "R", tuple[int, ...]: "N"}.get(kind, "TEXT")
