"""What a config derives from its values."""

from __future__ import annotations

import pytest

from ocrtrain.settings.config import Config


@pytest.mark.parametrize(("warmup", "steps", "used"), [(9, 10, 9), (10, 10, 9), (500, 2, 1),
                                                       (5, 1, 0)])  # fmt: skip
def test_a_warm_up_longer_than_the_run_is_shortened(warmup: int, steps: int, used: int) -> None:
    config = Config(warmup=warmup, steps=steps)
    assert (config.warmup_steps, config.warmup) == (used, warmup)


def test_a_micro_batch_larger_than_the_batch_is_the_whole_batch() -> None:
    assert Config(batch=3, micro_batch=4).rows_per_pass == 3
    assert Config(batch=4, micro_batch=2).rows_per_pass == 2


def test_the_limit_of_the_cache_is_in_bytes() -> None:
    assert Config().cache_bytes == 0
    assert Config(cache="d", cache_limit="1.5GiB").cache_bytes == 3 << 29
