"""Kills a program at a chosen file operation, the same one every time.

A point is an operation below one folder: opening a file for writing, a write, an fsync (before and
after it), a rename, a removal, creating or removing a folder. `points` runs the program to its end
and lists them in order; `run_killed` kills it with SIGKILL at one of them; `run_refused` fills the
disk, removes the permission to write or limits file sizes at one of them. The program itself is not
changed: `sitecustomize` installs an audit hook. Each process counts its own points.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

HOOK = """
import os, resource, signal, sys

_folder = os.path.realpath(os.environ["KILL_FOLDER"]) + os.sep
_at, _log = int(os.environ["KILL_AT"]), os.environ["KILL_LOG"]
_count, _busy = 0, False

def _inside(path):
    if isinstance(path, int):
        try:
            path = os.readlink(f"/proc/self/fd/{path}")
        except OSError:
            return False
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(_folder)

def _kill():
    if os.environ["KILL_GROUP"] == "1":
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

def _fill():
    with open(os.environ["KILL_BALLAST"], "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass

def _forbid():
    for folder, _, _ in os.walk(_folder, topdown=False):
        os.chmod(folder, 0o500)

def _limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))

def _point(what, path):
    global _count, _busy
    if _busy:
        return
    _busy = True
    try:
        if _inside(path):
            _count += 1
            if _log:
                with open(_log, "a") as file:
                    file.write(f"{what} {path}\\n")
            if _count == _at:
                globals()["_" + os.environ["KILL_ACTION"]]()
    finally:
        _busy = False

def _hook(event, arguments):
    if event == "open":
        if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            _point("open", arguments[0])
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
        _point(event, arguments[0])

def _around(function, name, after):
    def wrapped(handle, *rest):
        _point(name, handle)
        result = function(handle, *rest)
        if after:
            _point(name + " done", handle)
        return result
    return wrapped

os.fsync = _around(os.fsync, "fsync", True)
os.write = _around(os.write, "write", False)
os.writev = _around(os.writev, "write", False)
sys.addaudithook(_hook)
"""


def _environment(
    folder: Path, scratch: Path, env: Mapping[str, str], *, at: int, log: str, **more: str
) -> dict[str, str]:
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "sitecustomize.py").write_text(HOOK)
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(scratch), env.get("PYTHONPATH", "")])),
        "KILL_FOLDER": str(folder),
        "KILL_AT": str(at),
        "KILL_LOG": log,
        "KILL_GROUP": "0",
        "KILL_ACTION": "kill",
        **more,
    }


def points(
    command: Sequence[str], folder: Path, *, scratch: Path, env: Mapping[str, str]
) -> list[str]:
    """Run to the end and list the points of all processes, in the order they occurred.

    `scratch` is a folder for the hook, outside `folder`.
    """
    log = scratch / "points.txt"
    log.unlink(missing_ok=True)
    prepared = _environment(folder, scratch, env, at=0, log=str(log))
    done = subprocess.run(command, env=prepared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


def run_killed(
    command: Sequence[str],
    folder: Path,
    *,
    at: int,
    scratch: Path,
    env: Mapping[str, str],
    group: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run and kill at point `at`, counted from 1: the process that reaches it, or its whole group.

    Remaining child processes are left running, as after a real kill.
    """
    prepared = _environment(folder, scratch, env, at=at, log="", KILL_GROUP=str(int(group)))
    done = subprocess.run(
        command,
        env=prepared,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGKILL, (at, done.returncode, done.stdout, done.stderr)
    return done


def run_refused(
    command: Sequence[str],
    folder: Path,
    action: str,
    *,
    at: int,
    scratch: Path,
    env: Mapping[str, str],
) -> subprocess.CompletedProcess[str]:
    """Run, and apply an action at point `at`, for the rest of the program.

    `action` is `fill` (a file `ballast` beside `folder` fills the disk), `forbid` (all folders are
    read-only, for root as well), or `limit` (no file may grow beyond 64 bytes); `undo_refusal`
    undoes it.
    """
    more = {"KILL_ACTION": action, "KILL_BALLAST": str(folder.parent / "ballast")}
    prepared = _environment(folder, scratch, env, at=at, log="", **more)
    if action == "forbid" and os.geteuid() == 0:
        without = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}", *command]
    return subprocess.run(command, env=prepared, capture_output=True, text=True, check=False)


def undo_refusal(folder: Path) -> None:
    """Undo the action of `run_refused`."""
    (folder.parent / "ballast").unlink(missing_ok=True)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` evenly spaced points of 1..count, with the first and the last."""
    if count <= wanted:
        return list(range(1, count + 1))
    return sorted({1 + round(n * (count - 1) / (wanted - 1)) for n in range(wanted)})
