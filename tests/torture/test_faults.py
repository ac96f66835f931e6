"""A thousand of each kind of damage to each kind of file: nothing silent, no hang, no crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fault import Target, run, table
from tests.support.faultmatrix import MATRIX
from tests.support.results import record

pytestmark = pytest.mark.torture
CASES = 1_000


@pytest.mark.parametrize("target", MATRIX, ids=lambda target: target.name)
def test_a_thousand_of_each(target: Target, tmp_path: Path) -> None:
    target.make(tmp_path)
    results = [run(target, tmp_path, kind, CASES) for kind in target.kinds]
    record("faults", table(results))
    assert not [result for result in results if result.bad], table(results)
