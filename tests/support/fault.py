"""Damages files as disks, networks and people do, and classifies what their public reader does.

A `Target` is a folder of valid files, the one to damage, and a function that reads everything.
`run` damages the file many times, in a child process with a time limit, and counts the outcomes:
one of `GOOD` (the original data, or an `OcrError` that names the sample or file) or of `BAD`. Every
case is seeded by the names of target and damage and its number.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ocrdata.errors import OcrError, ShardError

ROOT = Path(__file__).parents[2]
GOOD = ("original data", "error names sample", "error names file")
BAD = ("error names neither", "not detected", "wrong data", "crash", "hang")
CASE_SECONDS = 20
"""Time limit of one case; the slowest takes tens of milliseconds."""

Reading = dict[str, object]
"""What was read, by name; an `OcrError` for a part that could not be read."""

Span = tuple[str, int, int]
"""A part of a file that can be swapped with another: its name, first byte, end."""


KEY = "by key "
"""Prefix of the name of a sample that was read by its key."""


@dataclass(frozen=True)
class Target:
    """`make` fills a folder, `file` in it is damaged, `read` reads the whole folder.

    `must_detect`: any damage must give an error (a checker, not a reader). `by_sample`: an error
    about one sample must name it. `place`: a text that every error must contain.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Reading]
    kinds: tuple[str, ...]
    place: str
    must_detect: bool = False
    by_sample: bool = False
    spans: Callable[[Path], list[Span]] = field(default=lambda _: [])


def flip(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """Flip one bit."""
    at = pick.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << pick.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """Truncate anywhere."""
    return data[: pick.randrange(len(data))]


def cut_at_member(data: bytes, pick: random.Random, spans: list[Span]) -> bytes:
    """Truncate where a member begins, or before the end-of-archive blocks."""
    return data[: pick.choice([start for _, start, _ in spans] + [spans[-1][2]])]


def zeroed(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """Zero 4 KiB that are not all zeros already; the whole of a smaller file."""
    while True:
        start = pick.randrange(max(1, len(data) - 4095))
        old = data[start : start + 4096]
        if any(old):
            return data[:start] + bytes(len(old)) + data[start + 4096 :]


def swapped(data: bytes, pick: random.Random, spans: list[Span]) -> bytes:
    """Swap two different parts."""
    while True:
        (_, a, b), (_, c, d) = sorted(pick.sample(spans, 2), key=lambda span: span[1])
        if data[a:b] != data[c:d]:
            return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


DAMAGES: Mapping[str, Callable[[bytes, random.Random, list[Span]], bytes]] = {
    "flip": flip, "cut": cut, "cut at member": cut_at_member, "zeroed": zeroed, "swapped": swapped,
}  # fmt: skip
TITLES = {
    "flip": "one bit flipped", "cut": "truncated", "cut at member": "truncated at a member",
    "zeroed": "4 KiB zeroed", "swapped": "two parts swapped",
}  # fmt: skip
"""The damages as tables of results name them; the keys are part of the seeds."""


class _TooLongError(BaseException):
    """Not an Exception, so that no `except Exception` takes it for a damaged file."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TooLongError


def outcome(target: Target, folder: Path, good: Reading) -> tuple[str, str]:
    """Read the folder and compare with `good`, what it gave undamaged: (outcome, detail)."""
    try:
        signal.alarm(CASE_SECONDS)
        found = target.read(folder)
    except _TooLongError:
        return "hang", ""
    except OcrError as exc:
        found = {"": exc}
    except Exception as exc:  # a reader must raise nothing but OcrError
        return "crash", f"{type(exc).__name__}: {exc}"
    finally:
        signal.alarm(0)
    return _judge(target, found, good)


def _judge(target: Target, found: Reading, good: Reading) -> tuple[str, str]:
    errors = {name: value for name, value in found.items() if isinstance(value, OcrError)}
    for name, value in found.items():
        if name not in errors and (name not in good or value != good[name]):
            return "wrong data", name
    if not errors:
        if found.keys() != good.keys():
            return "wrong data", "something is missing"
        return ("not detected" if target.must_detect else "original data"), ""
    for name, error in errors.items():
        key = error.key if isinstance(error, ShardError) else ""
        wanted = name.removeprefix(KEY)
        if target.place not in str(error) or (target.by_sample and wanted and key != wanted):
            return "error names neither", f"{name}: {error}"
    named = any(isinstance(error, ShardError) and error.key for error in errors.values())
    what = "error names sample" if named else "error names file"
    return what, str(next(iter(errors.values())))


def cases(
    target: Target, folder: Path, kind: str, *, first: int = 0, count: int
) -> Iterator[tuple[int, str, str]]:
    """(number, outcome, detail) of cases [first, count) of one kind of damage, in this process.

    The file is restored at the end. The time limit works only in the main thread.
    """
    signal.signal(signal.SIGALRM, _alarm)
    path = folder / target.file
    whole, good, spans = path.read_bytes(), target.read(folder), target.spans(folder)
    assert not [value for value in good.values() if isinstance(value, OcrError)], good
    try:
        for number in range(first, count):
            pick = random.Random(f"{target.name} {kind} {number}")
            path.write_bytes(DAMAGES[kind](whole, pick, spans))
            yield number, *outcome(target, folder, good)
    finally:
        path.write_bytes(whole)


def child(name: str, folder: Path, kind: str, *, first: int, count: int) -> None:
    """Run `cases` and print each outcome as a line of JSON, for a parent process."""
    from tests.support.faultmatrix import MATRIX

    target = next(target for target in MATRIX if target.name == name)
    for case in cases(target, folder, kind, first=first, count=count):
        print(json.dumps(case), flush=True)


@dataclass
class Result:
    """Outcomes for one target and one kind of damage, with an example of each bad outcome."""

    target: str
    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, number: int, what: str, detail: str) -> None:
        self.counts[what] += 1
        if what in BAD:
            self.examples.setdefault(what, f"case {number}: {detail}")

    @property
    def bad(self) -> bool:
        return any(self.counts[what] for what in BAD)


def run(target: Target, folder: Path, kind: str, count: int) -> Result:
    """Run `count` cases of one kind of damage in child processes; each case is counted once."""
    result, first = Result(target.name, kind), 0
    whole = (folder / target.file).read_bytes()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OCR_SHARDS_CACHE": str(folder / "cache")}
    while first < count:
        words = [sys.executable, "-m", "tests.support.fault", target.name, str(folder), kind]
        try:
            done = subprocess.run(
                [*words, str(first), str(count)], cwd=ROOT, env=env, check=False,
                capture_output=True, text=True, timeout=60 + CASE_SECONDS + 0.2 * (count - first),
            )  # fmt: skip
            printed, how = done.stdout, "crash" if done.returncode else ""
            detail = f"status {done.returncode}: {done.stderr[-300:]}"
        except subprocess.TimeoutExpired as exc:
            printed, how, detail = (exc.stdout or b"").decode(), "hang", "the process hung"
        for line in printed.splitlines():
            number, what, why = json.loads(line)
            result.add(number, what, why)
            first = number + 1
        if how and first < count:  # the case after the last reported one ended the process
            result.add(first, how, detail)
            first += 1
            (folder / target.file).write_bytes(whole)
        assert how or first == count, done.stderr
    assert result.counts.total() == count
    assert (folder / target.file).read_bytes() == whole
    return result


def table(results: list[Result]) -> str:
    """A table of the outcomes of all targets, with the examples of bad ones below their line."""
    heads = [*GOOD, *BAD]
    lines = [f"{'target':36} {'damage':21}" + "".join(f"{head:>21}" for head in heads)]
    for result in results:
        counts = "".join(f"{result.counts[head]:>21,}" for head in heads)
        lines.append(f"{result.target:36} {TITLES[result.kind]:21}{counts}")
        lines += [f"    {what}: {text}" for what, text in result.examples.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    child(
        sys.argv[1], Path(sys.argv[2]), sys.argv[3], first=int(sys.argv[4]), count=int(sys.argv[5])
    )
