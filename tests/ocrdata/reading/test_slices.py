"""The slice at the end of a shard spec."""

from pathlib import Path

import pytest

from ocrdata.errors import SpecError
from ocrdata.reading.slices import parse_slice, split_slice, url_with_secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":", slice(None)),
        ("1:2", slice(1, 2)),
        ("-5:", slice(-5, None)),
        ("::2", slice(None, None, 2)),
        ("10:0:-3", slice(10, 0, -3)),
        (" 1 : +2 ", slice(1, 2)),
    ],
)
def test_slices_are_parsed_like_pythons(text: str, expected: slice) -> None:
    assert parse_slice("x", text) == expected


def test_slice_is_split_from_the_rest_of_the_spec() -> None:
    assert split_slice("a.tar[1:2]") == ("a.tar", "1:2")
    assert split_slice("a.tar") == ("a.tar", None)
    assert split_slice("a[bc]") == ("a[bc]", None)
    with pytest.raises(SpecError, match=r"\[7\].*\[7:8\]"):
        split_slice("a.tar[7]")


def test_a_path_that_exists_as_written_has_no_slice(tmp_path: Path) -> None:
    for name in ("x.tar.d[3]", "x.tar.d[1:2]"):
        (tmp_path / name).mkdir()
        assert split_slice(str(tmp_path / name)) == (str(tmp_path / name), None)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("https://user:secret@host/x.json[:5]", "https://host/x.json"),
        ("name=https://host/x.json?key=secret:0.5", "https://host/x.json"),
        ("https://host/x.json[:5]", ""),
        ("hf://datasets/a/b@v1/x.json", ""),
        ("s3://bucket/x-<000..017>.tar[:9]", ""),
        ("shards/x-?.tar", ""),
    ],
)
def test_url_with_a_secret(text: str, shown: str) -> None:
    assert url_with_secret(text) == shown
