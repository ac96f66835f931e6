"""The trackio record, read back from its database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOGS = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **options):
    raise OSError("no network in this test")

socket.create_connection = socket.getaddrinfo = refuse
from ocrtrain.run.trackio_sink import TrackioSink
from ocrtrain.settings.config import Config

run = Path(sys.argv[1])
for steps in (range(3), range(3, 5)):
    sink = TrackioSink(run, Config(name="mine", wandb_project="here"))
    for step in steps:
        sink.write(step, {"train/loss": 4.0 - step})
    sink.close(failed=False)
import trackio
from trackio.sqlite_storage import SQLiteStorage
names = SQLiteStorage.get_runs("here")
found = SQLiteStorage.get_logs("here", "mine-run")
print(json.dumps([names, [[line["step"], line["train/loss"]] for line in found]]))
"""


def test_a_resumed_run_goes_on_in_the_same_record_in_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    environment = {name: value for name, value in os.environ.items() if name != "TRACKIO_DIR"}
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", LOGS, str(run)], capture_output=True, text=True, timeout=120,
        env=environment | {"HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    names, lines = json.loads(done.stdout)
    assert names == ["mine-run"]
    assert lines == [[0, 4.0], [1, 3.0], [2, 2.0], [3, 1.0], [4, 0.0]]
    assert list((run / "trackio").glob("here*"))
