"""Records the results of long tests: printed, and appended to a dated file if a folder is set."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

FOLDER = "TORTURE_RESULTS"
"""The environment variable that names the folder of results; `make torture` sets it."""


def record(name: str, text: str) -> None:
    """Append `text` to FOLDER/torture-NAME-DATE.txt; a new file starts with a line of versions."""
    print(text)
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    path = Path(folder) / f"torture-{name}-{datetime.date.today()}.txt"
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "pyarrow"))
    head = f"Python {platform.python_version()}, {versions}\n\n" if not path.exists() else ""
    with path.open("a") as file:
        file.write(f"{head}{text}\n")
