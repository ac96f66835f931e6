"""System-call traces of a conversion and a training run: every file is synced, renamed, and its
folder synced, the manifest last. Also tests that the replay of a trace detects each violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.convertkill import command, write_rows
from tests.support.durable import Call, parse, replay, trace
from tests.support.shardcommand import environment

OUT = Path("/o")


def calls(*lines: str) -> list[Call]:
    """'fsync /o/a' -> a call; with the prefix `p2:`, of another process."""
    found = []
    for number, line in enumerate(lines):
        process, _, rest = line.rpartition(":")
        name, *paths = rest.split()
        words = "O_CREAT" if name == "openat" else ""
        found.append(Call(float(number), process, name, tuple(paths), words))
    return found


GOOD = (
    "mkdir /o", "fsync /", "openat /o/.a.tmp", "write /o/.a.tmp", "fsync /o/.a.tmp",
    "rename /o/.a.tmp /o/a", "fsync /o",
)  # fmt: skip
UNSYNCED = "/o/.a.tmp is not synced before it becomes /o/a"


def test_a_correct_order() -> None:
    found = replay(calls(*GOOD), OUT)
    assert (found.broken, found.published) == ([], ["/o/a"])


@pytest.mark.parametrize(
    ("lines", "broken"),
    [
        ([*GOOD[:4], *GOOD[5:]], UNSYNCED),
        ([*GOOD[:5], "write /o/.a.tmp", *GOOD[5:]], UNSYNCED),
        ([*GOOD[:5], "mmap /o/.a.tmp", *GOOD[5:]], UNSYNCED),
        (GOOD[:6], "the folder of /o/a is never synced"),
        ([*GOOD[:6], "p2:fsync /o"], "the folder of /o/a is never synced"),
        (
            [*GOOD[:6], "openat /o/.b.tmp", "fsync /o/.b.tmp", "rename /o/.b.tmp /o/b", "fsync /o"],
            "the folder of /o/a is not synced before /o/b exists",
        ),
        (["mkdir /o"], "/o is created but its parent never synced"),
        (["mkdir /o/sub"], "/o/sub is created but its parent never synced"),
        (["openat /o/a", "fsync /o/a"], "/o/a is written under its final name"),
        (
            ["openat /o/.s.tmp/w", "fsync /o/.s.tmp/w", "rename /o/.s.tmp /o/s", "fsync /o"],
            "/o/.s.tmp is not synced before it becomes /o/s",
        ),
        (
            ["openat /o/metrics.jsonl", "rename /o/.s.tmp /o/step_1", "fsync /o"],
            "/o/metrics.jsonl is not synced before /o/step_1",
        ),
    ],
)  # fmt: skip
def test_each_broken_rule_is_detected(lines: list[str], broken: str) -> None:
    assert replay(calls(*lines), OUT).broken == [broken]


def test_lines_of_strace_are_parsed() -> None:
    for line, name, paths in (
        ("1.5 fsync(3</o/.a.tmp>)        = 0", "fsync", ("/o/.a.tmp",)),
        ('1.5 rename("/o/.a", "/o/a") = 0', "rename", ("/o/.a", "/o/a")),
        ('1.5 renameat2(AT_FDCWD</w>, "x", 4</o>, "/o/a", 0) = 0', "renameat2", ("/w/x", "/o/a")),
        ('1.5 openat(AT_FDCWD</w>, "a", O_WRONLY|O_CREAT, 0644) = 3</w/a>', "openat", ("/w/a",)),
        ('1.5 writev(3</o/a>, [{iov_base="\\0)", iov_len=2}], 1) = 2', "writev", ("/o/a",)),
        ("1.5 mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 7</o/a>, 0) = 0x7", "mmap", None),
    ):
        call = parse("1", line)
        if paths is not None:
            assert call is not None and (call.name, call.paths) == (name, paths)
    assert parse("1", '1.5 rename("/o/.a", "/o/a") = -1 ENOENT (No such file)') is None


def test_a_conversion_is_durable(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_rows(tmp_path / "rows.jsonl")
    words = command(tmp_path / "rows.jsonl", out, 2)
    found = replay(trace(words, environment(tmp_path), tmp_path / "trace"), out)
    assert found.broken == []
    names = [Path(path).name for path in found.published]
    assert names[-1] == "rows.json"
    assert {".rows-000.tar.tmp", ".rows-002.index.parquet.tmp"} <= found.written
    assert sorted(names) == sorted(path.name for path in out.iterdir())


def test_a_training_run_is_durable(tmp_path: Path) -> None:
    from tests.support.trainkill import Trainer

    trainer = Trainer(tmp_path, whole=False)
    run = trainer.run("traced")
    found = replay(trace(trainer.command(run), trainer.env, tmp_path / "trace"), run)
    assert found.broken == []
    names = [path.removeprefix(f"{run}/") for path in found.published]
    assert names.index("config.json") < names.index("checkpoints/step_000004")
    assert {"model.safetensors", "optimizer.safetensors", "complete"} <= found.written
    assert names[-1] == "deepencoder_000012.safetensors"
    assert {"plan.json", "checkpoints/step_000008", "checkpoints/step_000012"} <= set(names)
