from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ocrdata.conversion.comparison import ComparisonTask
from ocrdata.conversion.convert import convert
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from tests.support.numbered import Numbered, square


@dataclass
class Edited(Numbered):
    """Numbered rows, some of them replaced."""

    edits: dict[int, Sample | RejectedRow] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        for row, result in super().rows(start, stop):
            yield row, self.edits.get(row, result)


OLD = dict(Numbered(30, frozenset({12})).rows(0, 30))
SAMPLE = OLD[14]
assert isinstance(SAMPLE, Sample) and len(SAMPLE.images) == 2


@pytest.mark.parametrize("compress", [None, "zstd"])
@pytest.mark.parametrize(
    ("row", "edit", "unchanged"),
    [
        (14, SAMPLE, True),
        (12, SAMPLE, True),
        (14, replace(SAMPLE, images=[square("blue"), *SAMPLE.images[1:]]), False),
        (14, replace(SAMPLE, images=SAMPLE.images[:1]), False),
        (14, replace(SAMPLE, meta={"row": 15}), False),
        (14, replace(SAMPLE, source="\ud83d"), False),
        (14, RejectedRow("gone"), False),
    ],
    ids=["none", "rejected row", "image", "fewer images", "meta", "not writable", "now rejected"],
)
def test_a_shard_is_unchanged_if_each_of_its_samples_is(
    tmp_path: Path, row: int, edit: Sample | RejectedRow, unchanged: bool, compress: str | None
) -> None:
    options = ConversionOptions(
        tmp_path, "set", shard_samples=10, max_reject_fraction=1, compress=compress
    )
    convert(Numbered(30, frozenset({12})), options)
    source = Edited(30, frozenset({12}), edits={row: edit})
    found: list[int] = []
    ComparisonTask(source, options.layout(30), tmp_path).make(range(3), found.append)
    assert found == ([0, 1, 2] if unchanged else [0, 2])
