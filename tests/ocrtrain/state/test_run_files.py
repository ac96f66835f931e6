from pathlib import Path

import pytest

from ocrdata.errors import TrainError
from ocrtrain.state.run_files import read_sealed, write_sealed


def test_sealed_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_sealed(path, {"lr": 0.1, "names": ["a", "b"]})
    assert read_sealed(path) == {"lr": 0.1, "names": ["a", "b"]}


def test_a_changed_number_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_sealed(path, {"lr": 0.1})
    path.write_text(path.read_text().replace("0.1", "0.3"))
    with pytest.raises(TrainError, match=r"config\.json: .*restore the original"):
        read_sealed(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"plan\.json: .*missing"):
        read_sealed(tmp_path / "plan.json")
