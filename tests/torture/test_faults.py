"""Each kind of file damaged a thousand times in each way: no wrong data, no hang, no crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fault import Target, run, table
from tests.support.faultmatrix import MATRIX
from tests.support.results import record

pytestmark = pytest.mark.torture
CASES = 1_000


@pytest.mark.parametrize("target", MATRIX, ids=lambda target: target.name)
def test_a_thousand_cases_of_each_kind_of_damage(target: Target, tmp_path: Path) -> None:
    target.make(tmp_path)
    results = [run(target, tmp_path, kind, CASES) for kind in target.kinds]
    record("faults", table(results))
    assert not [result for result in results if result.bad], table(results)
