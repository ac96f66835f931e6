"""How a field of `Config` and `ModelConfig` is declared: default, help, and what may become of it.

Every field is a command-line flag (`flags.py`), whose name and help come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any

from ocrdata.errors import Problems


def setting(
    default: Any,
    text: str,
    *,
    runtime: bool = False,
    change: bool = False,
    repeat: bool = False,
    older: Any = None,
) -> Any:
    """A field with its default and the help text of its flag.

    `runtime` fields may change on resume because no batch depends on them. The paths of shards are
    runtime fields too: the plan stores the shards' digests. `change` fields may change on resume as
    well, and each change is recorded with the step from which it applies (`changes.json`). The
    values of a `repeat` field add up if its flag is given several times. `older` is the value of a
    run that was saved before the field was introduced; None for the fields that every saved config
    has.
    """
    metadata = {
        "help": text, "runtime": runtime, "change": change, "repeat": repeat, "older": older
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def flag_name(name: str) -> str:
    """`seq_len` -> `--seq-len`."""
    return "--" + name.replace("_", "-")


def raise_all(faults: Iterator[str]) -> None:
    """Raise UsageError for a fault, UsageErrors for several."""
    problems = Problems()
    for fault in faults:
        problems.add(fault)
    problems.raise_all()
