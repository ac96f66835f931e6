"""Properties, as in `tests.support.fuzz`, of the files that a resumed run reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ocrdata.errors import OcrError
from ocrtrain.data.skipped import FILE, SkippedSamples
from ocrtrain.run import batch_log, run_log
from ocrtrain.run.run_log import RunLog
from ocrtrain.settings.config import Config
from ocrtrain.settings.saved_config import from_json, to_json
from ocrtrain.state.checkpoint import Checkpoint, write_completion_marker
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support import small
from tests.support.batches import batch
from tests.support.faulttargets import STEP, make_run, read_run
from tests.support.fuzz import EDITS, Check, Property, mutated

STEPS = 6
SKIPPED = ((2, "charts", 1), (2, "charts", 4))


def make_run_files(run: Path) -> None:
    """The logs, plan and config of a run of a few steps."""
    log = RunLog(run, Config(wandb="off"))
    for step in range(STEPS):
        log.write(step, {"val/loss": 5.0 - step} if step % 3 == 0 else {"train/loss": 4.0 - step})
    log.close()
    lines = [{"step": step, "identity": f"{step:032x}"} for step in range(STEPS)]
    (run / batch_log.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    SkippedSamples(skip=True, limit=99).record(run, batch(2, 1, 4).summary)
    assert len(SKIPPED) == len((run / FILE).read_text().splitlines())
    write_sealed(run / "plan.json", {"version": 1, "sources": [{"name": "x", "size": 9}]})
    write_sealed(run / "config.json", to_json(small.CONFIG))


def read_metrics(run: Path) -> object:
    """Truncate the log as a resumed run does, then read it. Changed numbers go undetected: lines
    have no digest, and nothing is computed from them. Everything else must be valid."""
    run_log.cut_back(run, STEPS)
    lines = run_log.read(run)
    assert all(isinstance(line, dict) and type(line["step"]) is int for line in lines)
    return True


def read_batches(run: Path) -> object:
    """Truncate the log as a resumed run does, then look up the identity of every step."""
    batch_log.cut_back(run, STEPS)
    assert all(isinstance(batch_log.identity_at(run, step), str) for step in range(STEPS))
    return True


def read_bad(run: Path) -> object:
    """Load it as a resumed run does. An incomplete last line may be missing; nothing may be
    added."""
    known = SkippedSamples(skip=True, limit=9)
    known.load(run)
    found = [at for at in SKIPPED if known.reason(at)]
    assert len(known) == len(found)
    return True


RUN_READERS: Mapping[str, Callable[[Path], object]] = {
    "metrics.jsonl": read_metrics,
    "batches.jsonl": read_batches,
    "bad.jsonl": read_bad,
    "plan.json": lambda run: read_sealed(run / "plan.json"),
    "config.json": lambda run: from_json(read_sealed(run / "config.json")),
    f"{STEP}/complete": read_run,
    f"{STEP}/state.json": read_run,
    f"{STEP}/config.json": read_run,
}


def mutated_run(name: str) -> Callable[[Path], Check]:
    """A mutated file of a run that is resumed: the original content, or an error."""

    def prepare(folder: Path) -> Check:
        make_run(folder)
        make_run_files(folder)
        path, read = folder / name, RUN_READERS[name]
        whole, good = path.read_bytes(), read(folder)

        def check(edits: Any) -> None:
            path.write_bytes(mutated(whole, edits))
            try:
                assert read(folder) == good
            except OcrError as exc:
                assert folder.name in str(exc)
            finally:
                path.write_bytes(whole)

        return check

    return prepare


def resealed(name: str) -> Callable[[Path], Check]:
    """A checkpoint's JSON with other values but valid digests: any value, or an OcrError."""

    def prepare(folder: Path) -> Check:
        make_run(folder)
        step = folder / STEP
        whole = (step / name).read_bytes()

        def check(value: Any) -> None:
            key, new, edits = value
            document = json.loads(whole)
            inner = document["state"] if "state" in document and key < 0.7 else document
            inner[sorted(inner)[int(key * len(inner))]] = new
            data = json.dumps(document).encode()
            (step / name).write_bytes(mutated(data, edits) if edits else data)
            (step / "complete").unlink()
            write_completion_marker(step)
            try:
                found = Checkpoint.open(step)
                found.config, found.state, found.changed_versions()
            except OcrError as exc:
                assert str(exc)

        return check

    return prepare


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)

PROPERTIES: tuple[Property, ...] = (
    *(Property(f"mutated {name}", lambda: EDITS, mutated_run(name)) for name in RUN_READERS),
    *(Property(f"rewritten {name}", lambda: st.tuples(
        st.floats(0, 1, exclude_max=True), JSON, st.just([]) | EDITS), resealed(name))
      for name in ("state.json", "config.json")),
)  # fmt: skip
