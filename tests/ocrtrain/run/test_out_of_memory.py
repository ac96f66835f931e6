"""Which errors say that memory ran out, and what is told to help."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ocrtrain.run.out_of_memory import is_out_of_memory, step_remedies, validation_remedies
from ocrtrain.settings.config import Config


def test_an_allocation_that_fails_on_the_cpu_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


@pytest.mark.parametrize(
    ("batch", "micro", "told"),
    [(10, 0, "--micro-batch 5"), (10, 5, "--micro-batch 2"), (7, 0, "--micro-batch 1")],
)
def test_fewer_rows_that_divide_the_batch_are_told(batch: int, micro: int, told: str) -> None:
    config = Config(batch=batch, micro_batch=micro)
    assert step_remedies(config, is_fp32=True) == [told, "--checkpointing", "--precision bf16"]
    Config(batch=batch, micro_batch=int(told.split()[1]))  # it is valid


def test_what_is_in_use_already_is_not_told() -> None:
    config = Config(batch=4, micro_batch=1, checkpointing=True, val_batch=8)
    (told,) = step_remedies(config, is_fp32=False)
    assert "--seq-len" in told
    assert validation_remedies(config, is_fp32=True) == ["--val-batch 4", "--precision bf16"]
    config = replace(config, val_batch=1)
    assert validation_remedies(config, is_fp32=False) == ["a device with more memory"]
