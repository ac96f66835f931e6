import copy

import pytest

from ocrdata.errors import ShardError, first_line


def test_a_shard_error_can_be_pickled_with_its_place() -> None:
    error = ShardError("a.tar", "bad", key="1", member="1.png", remedy="make it again")
    assert str(error) == "a.tar: sample 1: member 1.png: bad\n  make it again"
    again = copy.copy(error)
    assert (type(again), str(again), again.key) == (ShardError, str(error), "1")


@pytest.mark.parametrize(
    ("said", "line"),
    [("one\ntwo", "one"), ("\n one", "one"), ("", "ValueError"), ("x" * 900, "x" * 200)],
)
def test_the_first_line_of_a_librarys_exception(said: str, line: str) -> None:
    assert first_line(ValueError(said)) == line
