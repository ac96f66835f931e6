"""Damages files as disks, cables and people do, and says what the public reader made of it.

A `Target` is a folder of good files, the one among them to be damaged, and a reader of everything.
`run` damages it again and again, in a child process with a time limit, and names each outcome:
`identical` (what was read is what was written), `sample named` or `file named` (our error that says
where), or one of `BAD`. Nothing is random but by its seed.
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
GOOD = ("identical", "sample named", "file named")
BAD = ("place not named", "not noticed", "silent", "crash", "hang")
CASE_SECONDS = 20
"""How long one reading may take; the slowest takes tens of milliseconds."""

Reading = dict[str, object]
"""What was read, by name; an `OcrError` where a part could not be."""

Span = tuple[str, int, int]
"""A part of a file that can be exchanged with another: its name, first byte, end."""


KEY = "by key "
"""Before the name of a sample that was asked for by its key."""


@dataclass(frozen=True)
class Target:
    """`file`, in the folder that `make` fills, is damaged; `read` reads all there is in it.

    `must_notice`: no damage may be without an error (a checker, not a reader). `by_sample`: an
    error of reading one sample has to name that sample. `place` stands in every error.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Reading]
    kinds: tuple[str, ...]
    place: str
    must_notice: bool = False
    by_sample: bool = False
    spans: Callable[[Path], list[Span]] = field(default=lambda _: [])


def flip(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """One bit the other way."""
    at = pick.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << pick.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """The end is missing."""
    return data[: pick.randrange(len(data))]


def cut_at_member(data: bytes, pick: random.Random, spans: list[Span]) -> bytes:
    """The end is missing from where a member begins, or from the end mark on."""
    return data[: pick.choice([start for _, start, _ in spans] + [spans[-1][2]])]


def zeroed(data: bytes, pick: random.Random, _: list[Span]) -> bytes:
    """4 KiB, or what a smaller file has, are zeros; where they were, it is elsewhere."""
    while True:
        start = pick.randrange(max(1, len(data) - 4095))
        there = data[start : start + 4096]
        if any(there):
            return data[:start] + bytes(len(there)) + data[start + 4096 :]


def swapped(data: bytes, pick: random.Random, spans: list[Span]) -> bytes:
    """Two parts stand in each other's place."""
    while True:
        (_, a, b), (_, c, d) = sorted(pick.sample(spans, 2), key=lambda span: span[1])
        if data[a:b] != data[c:d]:
            return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


DAMAGES: Mapping[str, Callable[[bytes, random.Random, list[Span]], bytes]] = {
    "flip": flip, "cut": cut, "cut at member": cut_at_member, "zeroed": zeroed, "swapped": swapped,
}  # fmt: skip


class _TooLongError(BaseException):
    """Not an Exception: nobody's `except Exception` may take it for a damaged file."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TooLongError


def outcome(target: Target, folder: Path, good: Reading) -> tuple[str, str]:
    """What reading the folder as it is now gives, against what it gave when all was good."""
    try:
        signal.alarm(CASE_SECONDS)
        found = target.read(folder)
    except _TooLongError:
        return "hang", ""
    except OcrError as exc:
        found = {"": exc}
    except Exception as exc:  # whatever else gets out of a reader is what is looked for
        return "crash", f"{type(exc).__name__}: {exc}"
    finally:
        signal.alarm(0)
    return _judge(target, found, good)


def _judge(target: Target, found: Reading, good: Reading) -> tuple[str, str]:
    errors = {name: value for name, value in found.items() if isinstance(value, OcrError)}
    for name, value in found.items():
        if name not in errors and (name not in good or value != good[name]):
            return "silent", name
    if not errors:
        if found.keys() != good.keys():
            return "silent", "something is missing"
        return ("not noticed" if target.must_notice else "identical"), ""
    for name, error in errors.items():
        key = error.key if isinstance(error, ShardError) else ""
        wanted = name.removeprefix(KEY)
        if target.place not in str(error) or (target.by_sample and wanted and key != wanted):
            return "place not named", f"{name}: {error}"
    named = any(isinstance(error, ShardError) and error.key for error in errors.values())
    return ("sample named" if named else "file named"), str(next(iter(errors.values())))


def cases(
    target: Target, folder: Path, kind: str, *, first: int = 0, count: int
) -> Iterator[tuple[int, str, str]]:
    """(number, outcome, detail) of cases [first, count) of one kind, in this process.

    The file is good again at the end. Only the main thread can be woken by a time limit.
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
    """`cases` in a process of its own, an outcome a line."""
    from tests.support.faultmatrix import MATRIX

    target = next(target for target in MATRIX if target.name == name)
    for case in cases(target, folder, kind, first=first, count=count):
        print(json.dumps(case), flush=True)


@dataclass
class Result:
    """Outcomes of one target and one kind of damage, with an example of each bad one."""

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
    """`count` cases of one kind of damage, each of which has exactly one outcome."""
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
        if how and first < count:  # the case after the last one told took the process with it
            result.add(first, how, detail)
            first += 1
            (folder / target.file).write_bytes(whole)
        assert how or first == count, done.stderr
    assert result.counts.total() == count
    assert (folder / target.file).read_bytes() == whole
    return result


def table(results: list[Result]) -> str:
    """The outcomes of all targets, for people."""
    heads = [*GOOD, *BAD]
    lines = [f"{'target':36} {'damage':14}" + "".join(f"{head:>17}" for head in heads)]
    for result in results:
        counts = "".join(f"{result.counts[head]:>17,}" for head in heads)
        lines.append(f"{result.target:36} {result.kind:14}{counts}")
        lines += [f"    {what}: {text}" for what, text in result.examples.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    child(
        sys.argv[1], Path(sys.argv[2]), sys.argv[3], first=int(sys.argv[4]), count=int(sys.argv[5])
    )
