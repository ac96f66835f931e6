"""What all tests share. No example of a property is failed for being slow on a busy machine."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "project", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards and a tokenizer to train on, see `tests.support.data.make_inputs`."""
    from tests.support.data import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes with one thread: losses are compared bit for bit."""
    import torch  # here, so that tests of making and reading shards do without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
