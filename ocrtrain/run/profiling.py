"""--profile: a trace of some steps by torch's profiler, for https://ui.perfetto.dev.

The trace, Chrome's JSON format with gzip, lies in the run folder. Losses are the same as without.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ocrdata.errors import UsageError
from ocrdata.storage.files import explain_disk


def profiled_steps(text: str, first: int) -> range:
    """The steps of --profile: '10:13' is steps 10, 11 and 12; '3' the three from `first` on, where
    this process begins; '' none. Raises UsageError."""
    if not text:
        return range(0)
    try:
        numbers = [int(part) for part in text.split(":")]
        begin, end = numbers if len(numbers) == 2 else (first, first + numbers[0])
        if len(numbers) > 2 or not 0 <= begin < end:
            raise ValueError("no steps")
    except ValueError as exc:
        raise UsageError(
            f"--profile {text}: write a number of steps, as in 3, or the first step and the one "
            "after the last, as in 10:13"
        ) from exc
    return range(begin, end)


class Profiler:
    """Profiles a range of steps. `begin` and `end` are called around each step."""

    def __init__(self, run: Path, steps: range) -> None:
        self._run, self._steps = run, steps
        self._profile: torch.profiler.profile | None = None
        self._began = 0

    def begin(self, step: int) -> None:
        """A step begins."""
        if self._profile is None and step in self._steps:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profile, self._began = torch.profiler.profile(activities=activities), step
            self._profile.start()

    def end(self, step: int, *, is_last: bool = False) -> Path | None:
        """A step ended. Writes the trace after the last one that is profiled, or of this process,
        and returns its path; None before. Raises DiskError."""
        if self._profile is None or not (is_last or step + 1 == self._steps.stop):
            return None
        profile, self._profile = self._profile, None
        profile.stop()
        path = self._run / f"profile_{self._began:06d}-{step:06d}.json.gz"
        with explain_disk(path):
            profile.export_chrome_trace(str(path))
        return path
