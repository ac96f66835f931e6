"""Reads the `.wandb` file of a W&B run: records in the log format of LevelDB, blocks of 32 KiB with
7 bytes before each piece of a record (checksum, length, kind)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waiting import until

BLOCK, HEADER = 32_768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2 as messages

    data, at, pieces = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + HEADER + length > len(data):
            return  # still being written
        pieces = (b"" if kind in (FULL, FIRST) else pieces) + data[at + HEADER :][:length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = messages.Record()
            record.ParseFromString(pieces)
            yield record


def run_of(folder: Path) -> tuple[Any, list[dict[str, Any]], int]:
    """The run record, the history and the exit code in the only `.wandb` file below a folder.

    Waits for the exit code, the last record: W&B's process may write it after `finish` returns.
    """
    (path,) = folder.rglob("run-*.wandb")
    assert until(lambda: any(r.WhichOneof("record_type") == "exit" for r in records(path)))
    run, history, code = None, [], -1
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "history":
            items = record.history.item
            names = [item.key or "/".join(item.nested_key) for item in items]
            history.append(dict(zip(names, [json.loads(i.value_json) for i in items], strict=True)))
        elif kind == "exit":
            code = record.exit.exit_code
    return run, history, code
