"""JSON files of a run folder that carry their own digest: `config.json`, `plan.json`.

Owner of how they are written and believed. A number that changed by one bit would make another
run; so a file that was altered after it was written is an error, never another setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocrdata.errors import ShardError, TrainError
from ocrdata.files import explain_disk, write_json
from ocrdata.format import check_seal, parse_object, seal


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object with its digest, atomically."""
    write_json(path, seal(value))


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a file of the run, without its digest. Raises TrainError where it cannot be
    read or was changed."""
    try:
        with explain_disk(path):
            data = path.read_bytes()
        value = parse_object(str(path), data)
        check_seal(str(path), value)
    except FileNotFoundError as exc:
        raise TrainError(f"{path}: the file is missing") from exc
    except ShardError as exc:
        raise TrainError(
            f"{path}: cannot be read: {exc.detail}; put the original back (every checkpoint has a "
            "copy of the config), or start a new run"
        ) from exc
    del value["digest"]
    return value
