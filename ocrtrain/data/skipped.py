"""Bad samples of a run: which were skipped, written down before the step that skipped them.

Owner of `bad.jsonl`, a line for each sample that a step could not use, and of the limit. Skipping
is opt-in. A skipped sample leaves a masked hole in its row; no other takes its place. What is
written here is replayed: a resumed run, and anybody who rebuilds a batch, has the same holes, even
where the sample can be read by then.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from ocrdata.errors import TrainError
from ocrdata.storage.files import atomic_file, explain_disk, fsync_folder
from ocrdata.storage.sealed import canonical, digest_of
from ocrtrain.data.batch import Batch
from ocrtrain.state.run_files import Line, parse_line

FILE = "bad.jsonl"

Occurrence = tuple[int, str, int]
"""(step, source, position of the sample in its shard set)"""


class SkippedSamples:
    """What is known to be bad. `skip` says whether new ones may be skipped; at most `limit` in
    the whole run. Reading `reason` is safe from the loader's threads."""

    def __init__(self, *, skip: bool = False, limit: int = 0) -> None:
        self.skip, self.limit = skip, limit
        self._known: dict[Occurrence, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def reason(self, occurrence: Occurrence) -> str:
        """Why a sample was skipped at this step; "" where it was not."""
        with self._lock:
            return self._known.get(occurrence, "")

    def load(self, run: Path) -> None:
        """Read what a run has written. A line torn by a kill was never acted on: it goes. Raises
        TrainError for a file that is not ours, or with more than `limit` lines."""
        whole, torn = self._read(run / FILE)
        if torn:
            with atomic_file(run / FILE) as file:
                file.writelines(whole)
        if len(self) > self.limit:
            raise TrainError(self._too_many(run))

    def replay(self, run: Path) -> None:
        """The same for who only looks: nothing is written, and the run may be going on."""
        self._read(run / FILE)

    def before(self, step: int) -> int:
        """How many samples were skipped before a step."""
        with self._lock:
            return sum(at[0] < step for at in self._known)

    def _read(self, path: Path) -> tuple[list[bytes], bool]:
        """Take in a record: its whole lines, and whether its last was torn. A last line that lacks
        its newline alone is whole: its check says so."""
        if not path.exists():
            return [], False
        with explain_disk(path):
            lines = path.read_bytes().splitlines(keepends=True)
        torn = bool(lines) and not lines[-1].endswith(b"\n")
        if torn:
            lines[-1] += b"\n"
        for number, line in enumerate(lines, start=1):
            try:
                value = parse_line(line) or {}
                if value.pop("check") != _check(value):
                    raise ValueError("its digest differs")
                at = value["step"], str(value["source"]), int(value["position"])
                reason = str(value["reason"])
            except (ValueError, TypeError, KeyError, OverflowError) as exc:
                if torn and number == len(lines):
                    return lines[:-1], torn
                raise TrainError(
                    f"{path}: line {number} is not a record of a skipped sample: it was damaged; "
                    "without it the run's batches cannot be made again"
                ) from exc
            with self._lock:
                self._known[at] = reason
        return lines, torn

    def record(self, run: Path, batch: Batch) -> None:
        """Write down what a batch found bad, durably, before its step.

        Raises TrainError where more than `limit` samples would have been skipped.
        """
        lines = []
        for segment in batch.skipped:
            at = batch.step, segment.source, segment.ref.position
            if self.reason(at):
                continue
            with self._lock:
                self._known[at] = segment.skipped
            line = {
                "step": at[0],
                "source": at[1],
                "position": at[2],
                "shard": segment.ref.shard,
                "key": segment.ref.key,
                "digest": segment.ref.digest,
                "reason": segment.skipped,
            }
            lines.append({**line, "check": _check(line)})
        if not lines:
            return
        path = run / FILE
        fresh = not path.exists()
        with explain_disk(path), path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            fsync_folder(run)
        if len(self) > self.limit:
            last = lines[-1]
            raise TrainError(
                f"step {batch.step}: {last['shard']}: sample {last['key']}: {last['reason']}\n  "
                f"{self._too_many(run)}"
            )

    def _too_many(self, run: Path) -> str:
        return (
            f"{run / FILE}: samples were skipped {len(self)} times, more often than --max-bad "
            f"{self.limit}; repair the shards, or resume with a larger --max-bad"
        )


def _check(line: Line) -> str:
    """The digest of a line's other values: another position would be another batch."""
    return digest_of(canonical(line))
