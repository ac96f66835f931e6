from pathlib import Path

import pytest

from ocrdata.shards.names import beside, is_compressed, is_key, is_shard, shard_stem
from ocrdata.storage.files import can_be_a_path


@pytest.mark.parametrize(
    ("name", "shard", "compressed", "stem"),
    [
        ("chartqa-003.tar", True, False, "chartqa-003"),
        ("chartqa-003.tar.zst", True, True, "chartqa-003"),
        ("a.b.tar.zst", True, True, "a.b"),
        ("chartqa-003.index.parquet", False, False, "chartqa-003.index.parquet"),
        ("x.zst", False, False, "x.zst"),
        ("x.tar.gz", False, False, "x.tar.gz"),
        ("tar", False, False, "tar"),
    ],
)
def test_both_endings(name: str, shard: bool, compressed: bool, stem: str) -> None:
    assert (is_shard(name), is_compressed(name), shard_stem(name)) == (shard, compressed, stem)


def test_what_lies_beside_a_shard() -> None:
    for name in ("a/x-000.tar", "a/x-000.tar.zst"):
        assert beside(Path(name), ".tokens-0f.parquet").path == Path("a/x-000.tokens-0f.parquet")


def test_keys_are_nine_ascii_digits_or_more() -> None:
    assert is_key("000000000") and is_key("1234567890")
    assert not any(map(is_key, ("", "12345678", "12345678x", "²" * 9, "-00000001")))


def test_what_the_system_has_no_name_for() -> None:
    assert can_be_a_path("a b/ü.tar") and can_be_a_path("\udc80") and can_be_a_path("")
    assert not can_be_a_path("a\0b") and not can_be_a_path("\ud800")
