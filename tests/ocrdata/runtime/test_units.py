import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.runtime.units import human_bytes, human_time, parse_bytes


def test_sizes_and_times_are_readable() -> None:
    assert [human_bytes(n) for n in (0, 999, 1500, 2e6, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 KB", "2.0 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
    assert [human_time(s) for s in (4.2, 61, 3725)] == ["4.2 s", "1 min 01 s", "1 h 02 min"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("512B", 512), ("20GB", 20 * 10**9), ("500mb", 500 * 10**6),
        ("1TiB", 2**40), ("1.5 KiB", 1536), (" 3g ", 3 * 10**9), ("0.1GB", 10**8),
        ("1.0001kb", 1000), ("2PB", 2 * 10**15),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1GB", "1e9", "1,000", "20 G B", "1iB", "1 000", "1.GB", "inf", "9" * 16, "1EB"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="20GB"):
        parse_bytes(text)


@given(st.integers(0, 10**15))
def test_a_size_that_was_written_is_read(size: int) -> None:
    assert abs(parse_bytes(human_bytes(size)) - size) <= size / 20
