"""How much of a batch is shown."""

from __future__ import annotations

import pytest

from ocrtrain.commands.show_batch import build_parser
from ocrtrain.inspection.limits import Limits


def test_the_limits_are_the_defaults_of_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    typed = build_parser().parse_args(["--run", "x", "--step", "1"])
    assert all(getattr(typed, name) == value for name, value in vars(Limits()).items())
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    assert all(f"(default: {value:,})" in shown for value in vars(Limits()).values())
