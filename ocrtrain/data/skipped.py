"""The skipped samples of a run: `bad.jsonl`, one line for each sample that a step could not use.

Skipping is opt-in and limited. A skipped sample is masked in its row; no other takes its place. A
line is on disk before its step is trained, and the file is replayed: a resumed run, and anyone who
rebuilds a batch, masks the same samples, even if they have become readable since.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ocrdata.errors import TrainError
from ocrdata.storage.files import atomic_file, explain_disk, fsync_folder
from ocrdata.storage.sealed import canonical, digest_of
from ocrtrain.data.batch_rows import BatchSummary
from ocrtrain.state.run_files import Line, parse_line

FILE = "bad.jsonl"

Occurrence = tuple[int, str, int]
"""(step, source, position of the sample in its shard set)"""


class SkippedSamples:
    """The samples a run has skipped. `skip` says whether new ones may be skipped, at most `limit`
    in the whole run. `reason` may be called from the prefetcher's threads."""

    def __init__(self, *, skip: bool = False, limit: int = 0) -> None:
        self.skip, self.limit = skip, limit
        self._known: dict[Occurrence, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def reason(self, occurrence: Occurrence) -> str:
        """Why a sample was skipped at this step; "" if it was not."""
        with self._lock:
            return self._known.get(occurrence, "")

    def load(self, run: Path) -> None:
        """Read a run's file. An incomplete last line (killed process) was never acted on and is
        removed. Raises TrainError for a damaged file, or one with more than `limit` lines."""
        complete, unterminated = self._read(run / FILE)
        if unterminated:
            with atomic_file(run / FILE) as file:
                file.writelines(complete)
        if len(self) > self.limit:
            raise TrainError(self._too_many(run))

    def replay(self, run: Path) -> None:
        """Like `load`, but read-only and without the limit: the run may be in progress."""
        self._read(run / FILE)

    def before(self, step: int) -> int:
        """Number of samples skipped before a step."""
        with self._lock:
            return sum(at[0] < step for at in self._known)

    def _read(self, path: Path) -> tuple[list[bytes], bool]:
        """Read the file: its complete lines, and whether it ended without a newline. A last line
        that lacks only its newline is complete: its checksum says so."""
        if not path.exists():
            return [], False
        with explain_disk(path):
            lines = path.read_bytes().splitlines(keepends=True)
        unterminated = bool(lines) and not lines[-1].endswith(b"\n")
        if unterminated:
            lines[-1] += b"\n"
        for number, line in enumerate(lines, start=1):
            try:
                value = parse_line(line) or {}
                if value.pop("check") != _check(value):
                    raise ValueError("checksum mismatch")
                at = value["step"], str(value["source"]), int(value["position"])
                reason = str(value["reason"])
            except (ValueError, TypeError, KeyError, OverflowError) as exc:
                if unterminated and number == len(lines):
                    return lines[:-1], unterminated
                raise TrainError(
                    f"{path}: line {number} is damaged; without it the run's batches cannot be "
                    "rebuilt; restore the file from a copy"
                ) from exc
            with self._lock:
                self._known[at] = reason
        return lines, unterminated

    def record(self, run: Path, batch: BatchSummary, *, write: bool = True) -> None:
        """Append the samples that a batch newly skipped, durably, before its step is trained; of
        several ranks one writes, all remember.

        Raises TrainError if that makes more than `limit`.
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
        if write:
            _append(run / FILE, lines)
        if len(self) > self.limit:
            last = lines[-1]
            raise TrainError(
                f"step {batch.step}: {last['shard']}: sample {last['key']}: {last['reason']}\n  "
                f"{self._too_many(run)}"
            )

    def _too_many(self, run: Path) -> str:
        return (
            f"{run / FILE}: samples were skipped {len(self)} times, but --max-bad is {self.limit}; "
            "repair the shards, or resume with a larger --max-bad"
        )


def _append(path: Path, lines: Sequence[Line]) -> None:
    """Append lines to a file, durably."""
    fresh = not path.exists()
    with explain_disk(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    if fresh:
        fsync_folder(path.parent)


def _check(line: Line) -> str:
    """The checksum of a line's other values."""
    return digest_of(canonical(line))
