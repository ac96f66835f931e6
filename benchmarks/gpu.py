"""Both stages of the full model on a GPU: one prepared script of at most 8 minutes.

    python -m benchmarks.gpu --out gpu.json [--wheels DIR]

Needs torch 2.11 or newer with Python 3.11 or newer, no network, and nothing from elsewhere: the
data are the project's synthetic charts and sums, the weights random. What the machine lacks besides
torch is installed from the wheels that `python -m benchmarks.gpu_wheels DIR` gathered, into an
environment of its own that is deleted afterwards. wandb and datasets are not needed.

Each part (`benchmarks/gpu_parts.py`) is a process of its own, killed after twice its time. A part
that fails leaves the others, and its error is in the result; one for which the time is too short is
skipped, and the result says so. The result is written anew after every part, so that a run that is
cut short is worth what it has done. Exit status 1 if a part failed.

`--toy --here` runs everything on a small model in seconds, also on a CPU: the tests do.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from benchmarks.gpu_wheels import install_missing

CLOSING = 5.0
"""Seconds kept for the end."""

VOCABULARY = 65_537
TOY_VOCABULARY = 330
SPECIAL = 10  # ids of the special tokens

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A function of `benchmarks.gpu_parts` with its options. It takes about `seconds` on a large
    GPU, its start included, and is skipped if fewer are left. `torchrun`: it is the one rank of a
    distributed run."""

    work: str
    seconds: int
    options: Numbers = field(default_factory=dict)
    torchrun: bool = False


def _train(seconds: int, *, torchrun: bool = False, **options: Any) -> Part:
    return Part("train", seconds, options, torchrun)


PARTS = {
    "weights": Part("weights", 30),
    "peaks": Part("peaks", 20),
    "stage 1": _train(45, stage="stage1"),
    "stage 2, packed": _train(45, stage="stage2", pack=True),
    "stage 2": _train(40, stage="stage2", steps=40),
    "attention": Part("attention", 50),
    "stage 2, packed, sdpa": _train(40, stage="stage2", pack=True, attention="sdpa"),
    "loader": Part("loader", 40),
    "stage 1, muon": _train(45, stage="stage1", optimizer="muon"),
    "stage 1, one rank": _train(50, stage="stage1", torchrun=True),
    "stage 2, packed, 4 x 8,192": _train(45, stage="stage2", pack=True, batch=4, steps=12),
    "stage 1, packed": _train(45, stage="stage1", pack=True, batch=4, steps=12),
    "stage 1, checkpointing": _train(45, stage="stage1", checkpointing=True),
}
"""What is measured, the most important first: the last are skipped where time is short. Packed rows
are attended to by the way that the run chooses, where no other is named."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the result, JSON")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what is missing")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), help="only these")
    parser.add_argument("--toy", action="store_true", help="a small model, in seconds")
    parser.add_argument("--here", action="store_true", help="all parts in this process")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status."""
    asked = parser().parse_args(arguments)
    if asked.part:
        name, folder = asked.part
        _write(Path(folder) / "part.json", measure(name, Path(folder), toy=asked.toy))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return Run(asked, Path(folder)).everything()


def measure(name: str, folder: Path, *, toy: bool) -> Numbers:
    """The numbers of a part, measured in this process."""
    from benchmarks import gpu_parts

    part = PARTS[name]
    numbers: Numbers = getattr(gpu_parts, part.work)(gpu_parts.Setting(folder, toy), **part.options)
    return numbers


class Run:
    """The parts one after the other, and their result."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked, self.folder, self.python = asked, folder, sys.executable
        self._began = time.monotonic()
        self._parts: dict[str, Numbers] = {}

    def everything(self) -> int:
        """Do what fits into the time; the exit status."""
        if self.asked.wheels:
            self._record("install", self._install)
        self._record("data", self._data)
        for name, part in PARTS.items():
            if name in (self.asked.parts or PARTS) or name == "weights":
                needed = 1 if self.asked.toy else part.seconds
                if needed > self._left():
                    self._parts[name] = {"skipped": f"{self._left():.0f} s left of {needed}"}
                    self._save()
                else:
                    self._record(name, partial(self._measure, name))
        failed = [name for name, found in self._parts.items() if "error" in found]
        print(f"written to {self.asked.out}; failed: {', '.join(failed) or 'none'}", flush=True)
        return int(bool(failed))

    def _left(self) -> float:
        """Seconds left."""
        return self.asked.minutes * 60 - CLOSING - (time.monotonic() - self._began)

    def _record(self, name: str, work: Callable[[], Numbers]) -> None:
        """Do a part; whatever happens in it becomes its result."""
        began = time.monotonic()
        try:
            found = work()
        except Exception as exc:  # every part is on its own
            found = {"error": str(exc) or repr(exc), "trace": traceback.format_exc()[-3000:]}
        self._parts[name] = {"seconds": round(time.monotonic() - began, 2), **found}
        print(f"{name}: {json.dumps(self._parts[name])[:600]}", flush=True)
        self._save()

    def _save(self) -> None:
        minutes = (time.monotonic() - self._began) / 60
        about = {"python": platform.python_version(), "cores": os.cpu_count()}
        _write(self.asked.out, {**about, "minutes": minutes, "toy": self.asked.toy,
                                "parts": self._parts})  # fmt: skip

    def _install(self) -> Numbers:
        self.python, installed = install_missing(self.asked.wheels, self.folder / "environment")
        return {"installed": installed}

    def _data(self) -> Numbers:
        """Shards of charts and sums, and a tokenizer of the full model's vocabulary."""
        limit = 24 if self.asked.toy else 1024
        counts = {"charts": limit, "sums": limit}
        for source, count in counts.items():
            words = [source, "--limit", str(count), "--out", str(self.folder / "shards")]
            self._make_shards(words)
        write_ranks(self.folder, toy=self.asked.toy)
        return counts

    def _make_shards(self, words: Sequence[str]) -> None:
        if not self.asked.here:
            self.command(["-m", "tools.make_shards", *words])
            return
        from ocrdata.commands import make_shards

        with redirect_stdout(io.StringIO()):
            make_shards.main(list(words))

    def _measure(self, name: str) -> Numbers:
        if self.asked.here:
            with redirect_stdout(io.StringIO()):
                return measure(name, self.folder, toy=self.asked.toy)
        words = ["-m", "benchmarks.gpu", "--part", name, str(self.folder)]
        words += ["--toy"] if self.asked.toy else []
        if PARTS[name].torchrun:
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", *words]
        result = self.folder / "part.json"
        result.unlink(missing_ok=True)
        self.command(words, limit=2 * PARTS[name].seconds)
        found: Numbers = json.loads(result.read_text("utf-8"))
        return found

    def command(self, words: Sequence[str], *, limit: float = 60) -> None:
        """Run Python in a process group that is killed after `limit` seconds, or where the time is
        over. Raises RuntimeError with the end of what it printed."""
        log = self.folder / "log.txt"
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [self.python, *words], cwd=ROOT, env=os.environ | offline,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(max(1.0, min(limit, self._left())))
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            end = log.read_text("utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"ended with status {status}:\n{end}")


def write_ranks(folder: Path, *, toy: bool) -> None:
    """Write `ranks.tiktoken`, a tokenizer of the model's vocabulary."""
    ranks = (TOY_VOCABULARY if toy else VOCABULARY) - SPECIAL
    (folder / "ranks.tiktoken").write_text("\n".join(rank_lines(ranks)), "ascii")


def rank_lines(count: int) -> list[str]:
    """A rank file of the 256 bytes and of pairs of bytes: a token is about two letters of text."""
    tokens = [bytes([value]) for value in range(256)]
    tokens += [bytes([pair >> 8, pair & 255]) for pair in range(count - 256)]
    return [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]


def _write(path: Path, value: Numbers) -> None:
    """Write JSON complete or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
