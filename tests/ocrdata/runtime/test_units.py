from ocrdata.runtime.units import human_bytes, human_time


def test_sizes_and_times_are_readable() -> None:
    assert [human_bytes(n) for n in (0, 999, 1500, 2e6, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 KB", "2.0 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
    assert [human_time(s) for s in (4.2, 61, 3725)] == ["4.2 s", "1 min 01 s", "1 h 02 min"]
