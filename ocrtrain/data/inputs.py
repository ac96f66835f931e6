"""Checks that everything a command line names is there: shards, tokenizer, encoder file.

In: a config. Out: an error that tells all that is missing at once. Opens nothing and imports no
torch, so that a command can answer at once; a run that starts finds the same when it opens them.
"""

from __future__ import annotations

from collections.abc import Callable

from ocrdata.errors import Problems
from ocrdata.reading.spec import resolve
from ocrtrain.settings.checks import check_data, check_weights
from ocrtrain.settings.config import Config


def check_inputs(config: Config, *, weights: bool = True) -> None:
    """Check that the data flags agree, that all they name exists and, with `weights`, that the
    encoder file does. Raises UsageError, UsageErrors for several faults."""
    problems = Problems()
    checks: list[Callable[[Config], None]] = [check_data, *([check_weights] if weights else [])]
    for check in checks:
        with problems:
            check(config)
    for specs in (config.shards, config.text, config.val, config.val_text):
        if specs:
            with problems:
                resolve(list(specs))
    problems.raise_all()
