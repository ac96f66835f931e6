"""Checks the order of writes, fsyncs and renames in a trace of system calls.

`trace` runs a program under strace, which also sees what native libraries write (Arrow,
safetensors). `replay` checks the calls below one folder. A name without a leading dot is final:
files are written under another name, synced, and renamed to it; then the folder is synced, before
the next final name and before the program ends. Only logs are written under a final name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate",
          "copy_file_range", "sendfile", "mmap"}  # fmt: skip
SYNCS = {"fsync", "fdatasync"}
RENAMES = {"rename", "renameat", "renameat2", "link", "linkat"}
OPENS = {"open", "openat", "creat"}
MAKES = {"mkdir", "mkdirat"}
TRACED = sorted(WRITES | SYNCS | RENAMES | OPENS | MAKES)
LOGS = {"metrics.jsonl", "batches.jsonl", "bad.jsonl"}
"""Files that grow line by line; a checkpoint syncs them first."""

_LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+)")
_HANDLE = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, order=True)
class Call:
    """A completed system call and its paths."""

    time: float
    process: str
    name: str
    paths: tuple[str, ...]
    words: str = ""


def trace(command: Sequence[str], env: Mapping[str, str], scratch: Path) -> list[Call]:
    """Run a command, which must succeed; returns the calls of all its processes, in order."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("the command strace is missing")
    scratch.mkdir()
    words = [strace, "-ff", "-ttt", "-y", "-s", "4096", "-o", str(scratch / "calls"),
             "-e", f"trace={','.join(f'?{name}' for name in TRACED)}", *command]  # fmt: skip
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"processes cannot be traced here: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    calls = []
    for path in scratch.glob("calls.*"):
        for line in path.read_text(errors="replace").splitlines():
            call = parse(path.suffix[1:], line)
            if call is not None:
                calls.append(call)
    return sorted(calls)


def parse(process: str, line: str) -> Call | None:
    """Parse a line of strace; None for a failed call or one without files."""
    match = _LINE.match(line)
    if match is None or int(match[4]) < 0:
        return None
    name, words = match[2], match[3]
    if name in WRITES | SYNCS:
        if name == "mmap" and not ("MAP_SHARED" in words and "PROT_WRITE" in words):
            return None
        handles = _HANDLE.findall(words)
        paths = tuple(handles[-1:] if name in ("mmap", "copy_file_range") else handles[:1])
    else:
        folders = _HANDLE.findall(words)
        texts = _TEXT.findall(words)[: 2 if name in RENAMES else 1]
        paths = tuple(
            text if text.startswith("/") else f"{folders[min(at, len(folders) - 1)]}/{text}"
            for at, text in enumerate(texts)
            if text.startswith("/") or folders
        )
    return Call(float(match[1]), process, name, paths, words) if paths else None


class Replay:
    """Tracks what is not yet durable, call by call, and the rules that were broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.dirty: set[str] = set()
        self.written: set[str] = set()
        self.made: set[str] = set()  # folders whose parent is not synced yet
        self.unnamed: dict[str, str] = {}  # process: a final name whose folder is not synced yet
        self.published: list[str] = []
        self.broken: list[str] = []

    def take(self, call: Call) -> None:
        """Process one call."""
        if call.name in SYNCS:
            self.made = {path for path in self.made if os.path.dirname(path) != call.paths[0]}
        paths = [path for path in call.paths if (path + "/").startswith(self.folder + "/")]
        if not paths:
            return
        if call.name in MAKES:
            self.made |= {path for path in paths if path == self.folder or self._is_final(path)}
        elif call.name in OPENS:
            if "O_CREAT" in call.words or call.name == "creat":
                self._create(paths[0])
        elif call.name in WRITES:
            self.dirty.add(paths[0])
            self.written.add(os.path.basename(paths[0]))
        elif call.name in SYNCS:
            self.dirty.discard(paths[0])
            if os.path.dirname(self.unnamed.get(call.process, "")) == paths[0]:
                del self.unnamed[call.process]
        elif len(paths) == 2:
            self._rename(call.process, *paths)

    def _create(self, path: str) -> None:
        self.dirty |= {path, os.path.dirname(path)}
        if self._is_final(path) and os.path.basename(path) not in LOGS:
            self.broken.append(f"{path} is written under its final name")

    def _rename(self, process: str, source: str, target: str) -> None:
        if os.path.basename(source) in self.written:  # safetensors renames temporary files itself
            self.written.add(os.path.basename(target))
        inside = {path for path in self.dirty if path == source or path.startswith(source + "/")}
        if self._is_final(target):
            self.broken += [f"{path} is not synced before it becomes {target}" for path in inside]
            if process in self.unnamed:
                name = self.unnamed[process]
                self.broken.append(f"the folder of {name} is not synced before {target} exists")
            if "/step_" in target:
                logs = {path for path in self.dirty if os.path.basename(path) in LOGS}
                self.broken += [f"{path} is not synced before {target}" for path in logs]
            self.unnamed[process] = target
            self.published.append(target)
        self.dirty -= inside
        self.dirty |= {target + path.removeprefix(source) for path in inside}

    def _is_final(self, path: str) -> bool:
        """Whether a path is below the folder and no part of it is hidden."""
        inside = path.removeprefix(self.folder + "/")
        return inside != path and not any(part.startswith(".") for part in inside.split("/"))

    def end(self) -> None:
        """Process the end of the program."""
        self.broken += [f"the folder of {name} is never synced" for name in self.unnamed.values()]
        self.broken += [f"{path} is created but its parent never synced" for path in self.made]


def replay(calls: Iterable[Call], folder: Path) -> Replay:
    """Replay all calls of a program that wrote into `folder`."""
    state = Replay(folder)
    for call in calls:
        state.take(call)
    state.end()
    return state
