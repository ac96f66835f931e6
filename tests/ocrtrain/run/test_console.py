"""The lines of a run, each over the steps since the last one."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.run.console import Console
from ocrtrain.settings.config import Config
from tests.support.terminal import Terminal


def values(**changed: float) -> dict[str, float]:
    found = {"loss": 1.25, "lr": 5e-5, "dt": 0.5, "wait": 0.01, "tokens": 6173, "supervised": 10}
    return {f"train/{name}": value for name, value in (found | changed).items()}


def run(config: Config, steps: list[tuple[str, dict[str, float]]], *, done: int = 0) -> None:
    with Console(config, done=done) as console:
        for number, (source, found) in enumerate(steps, start=done):
            for name in ("loss", "supervised"):
                found[f"train/{source}_{name}"] = found[f"train/{name}"]
            console.step(number, [source], found, eta=3725)


def test_a_batch_of_two_sources_has_the_loss_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    mixed = values() | {"train/a_loss": 2.0, "train/a_supervised": 4, "train/b_supervised": 0}
    with Console(Config(), done=0) as console:
        console.step(0, ["a", "b"], mixed, eta=0)
    assert "| loss a 2.0000, b - |" in capsys.readouterr().out


def test_a_line_of_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    run(Config(), [("charts", values())] * 8, done=0)
    assert capsys.readouterr().out.splitlines()[0] == (
        "step    0/1000 | loss charts 1.2500 | lr 5.0e-05 | 0.500 s/step | wait 0.010 s | "
        "12,346 tok/s | eta 1 h 02 min"
    )
    run(Config(), [("charts", values(mfu=0.341))])
    assert "mfu 34.1%" in capsys.readouterr().out


def test_a_step_without_supervised_tokens_has_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    run(Config(), [("charts", values(loss=math.nan, supervised=0))])
    assert "| loss charts - |" in capsys.readouterr().out


def test_a_line_is_over_the_steps_since_the_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        ("a", values()),
        ("a", values(loss=1.0, supervised=30, dt=1.0, tokens=100, mfu=0.2)),
        ("b", values(loss=4.0, supervised=10, dt=3.0, tokens=300, wait=0.6, mfu=0.4)),
        ("a", values(loss=2.0, supervised=10, dt=2.0, tokens=200, mfu=0.3)),
    ]
    run(Config(steps=4, log_every=3), steps)
    last = capsys.readouterr().out.splitlines()[-1]
    for part in ("step 3/4", "loss a 1.2500, b 4.0000", "2.000 s/step", "wait 0.207 s",
                 "100 tok/s", "mfu 33.3%"):  # fmt: skip
        assert f"{part} |" in last


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 12))
def test_every_step_is_in_one_line(done: int, count: int, every: int) -> None:
    said: list[str] = []
    config = Config(steps=60, log_every=every)
    console = Console(config, done=done)
    console.say = said.append  # type: ignore[method-assign]
    for number in range(done, done + count):
        console.step(number, [], values(tokens=1, dt=1.0, wait=0.0), eta=1.0)
    console.close()
    console.close()
    shown = [int(found[1]) for line in said if (found := re.match(r"step +(\d+)/60 ", line))]
    due = [n for n in range(done, done + count) if n % every == 0]
    assert len(shown) == len(said) and shown == sorted({*due, done + count - 1})


def test_a_terminal_has_a_bar_and_lines_make_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with Console(Config(steps=30), done=0) as console:
        for number in range(12):
            console.step(number, [], values(), eta=1.0)
        console.say("saved it")
    written = terminal.getvalue()
    assert "/30" in written
    for line in re.findall(r"[^\r\n]*(?:step +\d+/30 \||saved it)", written):
        assert re.match(r"(step|saved)", line), "the line begins where the bar was removed"
