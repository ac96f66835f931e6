"""Several ranks train what a single process trains: the same losses, the same batches. All kinds
with 4 ranks and sharded models are in the torture tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrtrain.run.launch import train
from ocrtrain.run.parallel import who_encodes
from tests.support.rankruns import (
    KINDS,
    check_equal,
    check_tensors,
    kind_config,
    newest,
    train_alone,
)
from tests.support.ranks import train_on_ranks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def alone(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a single process, by kind."""
    return train_alone(inputs, tmp_path_factory.mktemp("alone"))


def test_two_ranks_train_what_one_process_trains(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    jobs = [(kind_config(inputs, tmp_path / kind, kind), False) for kind in KINDS]
    first, second = train_on_ranks(2, jobs, tmp_path)
    for kind in KINDS:
        check_equal(tmp_path / kind, alone / kind)
    assert "2 ranks, 2 rows a step each" in first[1]
    assert second[1] == "" and "WARNING" not in second[2]  # rank 0 alone prints


def test_a_checkpoint_goes_on_with_any_number_of_ranks(
    inputs: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    kind, run = "muon", tmp_path / "run"  # with AdamW's moments beside its own
    train_on_ranks(2, [(kind_config(inputs, run, kind, stop_at=5), False)], tmp_path)
    assert train(kind_config(inputs, run, kind, stop_at=9), resume=True) == 0
    train_on_ranks(
        2,
        [
            (kind_config(inputs, run, kind, stop_at=14, parallel="fsdp"), True),
            (kind_config(inputs, run, kind), True),
        ],
        tmp_path,
    )
    check_equal(run, alone / kind)
    check_tensors(newest(run), newest(alone / kind))


def test_all_encode_where_one_has_images_and_at_the_end_if_any_had() -> None:
    assert who_encodes([[0, 0], [0, 0]]) == [0, 0]
    assert who_encodes([[0, 0, 0], [0, 2, 0]]) == [0, 2, 1]
    assert who_encodes([[0, 0, 1], [0, 0, 2]]) == [0, 0, 2]
