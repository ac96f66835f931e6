"""Fixtures shared by all tests, and settings of hypothesis: examples have no time limit, so that a
busy machine does not fail them."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers.nginx import Nginx, need_nginx, serve_nginx
from tests.support.servers.s3 import S3Server, serve_s3

settings.register_profile(
    "project", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, also for the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCR_SHARDS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx, plain and over TLS; the test is skipped where it is not installed."""
    with serve_nginx(tmp_path_factory.mktemp("nginx"), program=need_nginx()) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that enforces If-Match."""
    with serve_s3("moto", tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def nanio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that ignores If-Match."""
    with serve_s3("nanio", tmp_path_factory.mktemp("nanio")) as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards and a tokenizer for training; see `tests.support.data.make_inputs`."""
    from tests.support.data import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, so that losses are bit-identical."""
    import torch  # imported here because most tests of shards do not need it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
