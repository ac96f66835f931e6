"""One optimizer step, in runs of a small model."""

from pathlib import Path

import pytest

from ocrdata.errors import TrainError
from ocrtrain.run.launch import train
from tests.support.data import small_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_that_is_not_finite_names_the_samples(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    wanted = r"(?s)step \d+: loss .*gradient norm .*squares-00.*--lr"
    with pytest.raises(TrainError, match=wanted) as caught:
        train(small_config(inputs, tmp_path / "run", lr=1e30, grad_clip=1e30, warmup=0))
    assert str(caught.value).count("squares-00") == 4
