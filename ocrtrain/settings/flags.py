"""Command-line flags, generated from the fields of `Config` and `ModelConfig`.

A command line is parsed into a `ParsedFlags`. All that is wrong with it is told at once: unknown
flags, invalid values, values that do not fit together, and what `check` finds missing.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Container, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, get_type_hints

from ocrdata.errors import Problems, UsageError
from ocrdata.runtime.cli import Parser
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.presets import describe_choices
from ocrtrain.settings.rules import CHOICES

Preset = Callable[[str, str], Config]
"""Names of a preset and of a recipe ("": the preset's) -> complete config."""

_CHOSEN = "size and recipe"

GROUPS = {
    _CHOSEN: ("preset", "recipe"),
    "data": (
        "shards", "text", "val", "val_text", "train_slice", "val_slice", "text_train_slice",
        "text_val_slice", "join_sets", "shuffle", "allow_leak", "tokenizer", "bad_samples",
        "max_bad", "cache", "cache_limit",
    ),
    "mix": (
        "source", "val_source", "source_at", "text_ratio", "text_ratio_at", "mix", "weigh_by",
        "at_end",
    ),
    "rows": (
        "batch", "micro_batch", "seq_len", "too_long", "pack", "pack_window", "row_images",
        "image_size", "image_size_of",
    ),
    "model": (
        "init", "init_parts", "patch_scale", "deepencoder", "fresh_gpt", "freeze", "checkpointing",
        "precision", "attention", "sam_repo", "clip_repo", "gpt_repo",
    ),
    "optimizer": (
        "optimizer", "steps", "lr", "lr_adamw", "warmup", "schedule", "schedule_from",
        "decay_part", "step_every", "step_factor", "sam_lr_scale", "clip_lr_scale", "momentum",
        "weight_decay", "beta1", "beta2", "grad_clip",
    ),
    "run": ("name", "out", "seed", "stop_at", "save_every", "keep", "workers", "device",
            "parallel"),
    "logging": (
        "log_every", "eval_every", "val_batch", "val_answers", "log_samples", "log_to",
        "wandb", "wandb_project", "profile",
    ),
    "sizes of the model": tuple(item.name for item in dataclasses.fields(ModelConfig)),
}  # fmt: skip
"""Every field, under the title its flag has in `--help`."""


class ParsedFlags(NamedTuple):
    """A parsed command line: the config, the values set on it by a flag, and how the run goes on.

    `resume` is --resume, or --extend, by which it goes on for `extend` steps more; `new_data` is
    --new-data. Then `config` lacks values that do not fit the preset, as they may fit the run:
    `problems` says which, for a folder without a run. `preset` gives the config that the flags
    changed, `prog` is how the command is typed, `others` are the values of flags that a command has
    of its own.
    """

    config: Config
    given: dict[str, Any]
    resume: bool
    preset: Preset
    prog: str
    others: dict[str, Any]
    extend: int = 0
    new_data: bool = False
    problems: Problems = Problems()


def parse(
    arguments: Sequence[str],
    preset: Preset,
    *,
    prog: str,
    description: str,
    add: Callable[[Parser], None] = lambda parser: None,
    check: Callable[[Config], None] = lambda config: None,
) -> ParsedFlags:
    """Parse a stage's command line. `add` adds the flags that the command has of its own.

    Raises UsageErrors for all that is wrong. If something is, but not with the sources, `check` is
    called as well, with the config of what is right, for what else it would find (a run that starts
    makes its own checks).
    """
    parser = build_parser(arguments, preset, prog=prog, description=description)
    add(parser)
    names = {name for group in GROUPS.values() for name in group}
    typed, problems = parser.parse_with_problems(list(arguments))
    others = {name: value for name, value in vars(typed).items() if name not in names}
    given = {n: v for n, v in vars(typed).items() if n in names and v is not None}
    extend, new_data = int(others.pop("extend") or 0), bool(others.pop("new_data"))
    # An --extend with a wrong value asks for a run that there is, too.
    extends = any(word.partition("=")[0] == "--extend" for word in arguments)
    resume = bool(others.pop("resume")) or extends
    if new_data and not resume:
        problems.add("--new-data needs --resume or --extend: a new run trains on any data")
    base = preset(given.get("preset", "full"), "")
    with problems:
        base = preset(base.preset, given.get("recipe", ""))
    if {"init": base.init, **given}["init"] != "pretrained":
        base = override(base, {"vocab_size": 0})  # no file decides it but the tokenizer's
    config, unfit = base, Problems()
    with unfit if resume else problems:
        config = override(base, given)
    closest = _closest(base, given)
    if problems and not resume and _names_its_data(closest, given):
        with problems:
            check(closest)
    problems.raise_all()
    return ParsedFlags(
        closest if unfit else config, given, resume, preset, prog, others, extend, new_data, unfit
    )


def build_parser(
    arguments: Sequence[str], preset: Preset, *, prog: str, description: str
) -> Parser:
    """The flags of a stage; their help shows the defaults of the preset that `arguments` name."""
    usage = f"{prog} --shards SPEC [SPEC ...] [flags]"
    parser = Parser(prog=prog, description=description, usage=usage)
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--preset", nargs="?")
    named.add_argument("--recipe", nargs="?")
    defaults = _named(named.parse_known_args(list(arguments))[0], preset)
    fields = {
        item.name: item for kind in (Config, ModelConfig) for item in dataclasses.fields(kind)
    }
    types = get_type_hints(Config) | get_type_hints(ModelConfig)
    for title, names in GROUPS.items():
        text = describe_choices(defaults.name) if title == _CHOSEN else None
        group = parser.add_argument_group(title, text)
        if title == "run":
            group.add_argument(
                "--resume",
                action="store_true",
                help="continue from the newest complete checkpoint in --out",
            )
            group.add_argument(
                "--extend",
                type=_count,
                metavar="STEPS",
                help="continue the run in --out, finished or not, and make it longer by so many "
                "steps; a schedule begins anew, with --lr, --warmup and --schedule as given "
                "(see --schedule-from)",
            )
            group.add_argument(
                "--new-data",
                action="store_true",
                help="with --resume or --extend: continue with other data than the run had",
            )
        for name in names:
            _add_flag(group, fields[name], types[name], value_of(defaults, name))
    return parser


def _named(typed: argparse.Namespace, preset: Preset) -> Config:
    """The config of a preset and a recipe as they are typed, of what is right of them."""
    name = typed.preset if typed.preset in CHOICES["preset"] else "full"
    try:
        return preset(name, typed.recipe or "")
    except UsageError:
        return preset(name, "")


def value_of(config: Config, name: str) -> Any:
    """A setting by name, of the config or of its model."""
    return getattr(config if hasattr(config, name) else config.model, name)


def override(config: Config, given: dict[str, Any]) -> Config:
    """`config` with the named fields replaced, fields of `config.model` included. Raises
    UsageErrors for all that is wrong in either."""
    model_names = {item.name for item in dataclasses.fields(ModelConfig)}
    model = {name: value for name, value in given.items() if name in model_names}
    run = {name: value for name, value in given.items() if name not in model_names}
    problems = Problems()
    with problems:
        run["model"] = dataclasses.replace(config.model, **model)
    with problems:
        config = dataclasses.replace(config, **run)
    problems.raise_all()
    return config


def _names_its_data(config: Config, given: dict[str, Any]) -> bool:
    """Whether the data that a command line names are in a config: of a --source that is wrong,
    nothing can be said but that."""
    return all(value_of(config, name) == given.get(name, ()) for name in ("shards", "source"))


def _closest(config: Config, given: dict[str, Any]) -> Config:
    """`config` with those of the named fields replaced whose values are valid."""
    for name, value in given.items():
        try:
            config = override(config, {name: value})
        except UsageError:
            continue
    return config


def typed(config: Config, base: Config, *, only: Container[str] | None = None) -> list[str]:
    """The flags that make `config` of `base`, as words of a command line; of the fields in `only`,
    if given."""
    words = []
    for names in GROUPS.values():
        for name in names:
            if only is not None and name not in only:
                continue
            value = value_of(config, name)
            if value == value_of(base, name):
                continue
            flag = flag_name(name)
            if isinstance(value, bool):
                words.append(flag if value else "--no-" + flag.removeprefix("--"))
            else:
                words += [flag, *_words(value)]
    return words


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, tuple) else [str(value)]


def _add_flag(
    group: argparse._ArgumentGroup, item: dataclasses.Field[Any], kind: Any, default: Any
) -> None:
    flag, text = flag_name(item.name), item.metadata["help"].replace("%", "%%")
    if kind is bool:
        text += f" (default: {'on' if default else 'off'})"
        group.add_argument(flag, help=text, action=argparse.BooleanOptionalAction, default=None)
        return
    if default not in ("", ()):
        text += f" (default: {' '.join(_words(default))})"
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
        action=_action(many=many, repeat=item.metadata.get("repeat", False)),
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
        setattr(namespace, self.dest, (*self.earlier(namespace), *values))

    def earlier(self, namespace: argparse.Namespace) -> tuple[Any, ...]:
        """What the flag gave before and keeps: nothing, the last one counts."""
        return ()


class _ExtendTuple(_StoreTuple):
    """Adds the values of a flag that may be repeated to a tuple."""

    def earlier(self, namespace: argparse.Namespace) -> tuple[Any, ...]:
        """The values of the flag so far."""
        return tuple(getattr(namespace, self.dest) or ())


def _action(*, many: bool, repeat: bool) -> str | type[argparse.Action]:
    if repeat:
        return _ExtendTuple
    return _StoreTuple if many else "store"


def _count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} must be a number of steps, 1 or more")
    return int(text)


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
