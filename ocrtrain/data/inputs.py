"""Checks that everything a command line names is there: shards, tokenizer, encoder file.

In: a config. Out: an error that tells all that is missing at once. Opens nothing and imports no
torch, so that a command can answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ocrdata.errors import Problems
from ocrdata.reading.spec import resolve, separate
from ocrtrain.settings.checks import check_data, check_weights
from ocrtrain.settings.config import Config
from ocrtrain.settings.named_sources import parse_specs


def check_inputs(config: Config, *, weights: bool = True) -> None:
    """Check that the data flags agree, that all they name exists and, with `weights`, that the
    encoder file does. Raises UsageError, UsageErrors for several faults."""
    problems = Problems()
    checks: list[Callable[[Config], None]] = [check_data, *([check_weights] if weights else [])]
    for check in checks:
        with problems:
            check(config)
    for group in _specs(config):
        with problems:
            resolve(group)
    problems.raise_all()


def _specs(config: Config) -> Iterator[list[str]]:
    """Every set of shards that a config names, as specs to resolve."""
    for specs in (config.shards, config.text, config.val, config.val_text):
        yield from [list(specs)] if config.join_sets and specs else separate(specs)
    named = config.named_sources
    yield from ([source.spec] for source in named)
    chosen = parse_specs("--val-source", config.val_source, named)
    yield from ([spec] for spec in chosen.values())
