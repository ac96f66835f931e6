"""Token counting killed at every point, with one process and with two."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.tokens.tokenizer import train_tokenizer
from tests.support.commandkill import killed_and_run_again
from tests.support.countkill import killed_and_made_again

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_every_point(tmp_path: Path, workers: int) -> None:
    killed_and_made_again(tmp_path, train_tokenizer(["12"], 266), workers=workers, wanted=1_000)


def test_a_conversion_killed_at_every_point_of_its_token_counting(tmp_path: Path) -> None:
    train_tokenizer(["12"], 266).save(tmp_path / "tokenizer.json")
    killed_and_run_again(tmp_path, tmp_path / "tokenizer.json", wanted=1_000)
