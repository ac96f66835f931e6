"""SIGKILL at a hundred points of a training run, half of them at an fsync or a rename."""

from pathlib import Path

import pytest

from tests.support.kill import spread
from tests.support.trainkill import Trainer

pytestmark = pytest.mark.torture


def test_killed_at_a_hundred_points(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    found = trainer.points
    durable = [n for n, what in enumerate(found, 1) if what.startswith(("fsync", "os.rename"))]
    chosen = {durable[n - 1] for n in spread(len(durable), 50)}
    others = [n for n in range(1, len(found) + 1) if n not in chosen]
    chosen |= {others[n - 1] for n in spread(len(others), 100 - len(chosen))}
    for at in sorted(chosen):
        trainer.killed_and_resumed(at)
