import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sources.benchmarks.fox import read

TURNS = [{"from": "human", "value": "<image>\nOCR this image."}, {"from": "gpt", "value": "A b\nc"}]


def test_a_record() -> None:
    found = read({"image": "en_1.png", "conversations": TURNS, "id": 3})
    assert (found.image, found.question) == ("en_1.png", "OCR this image.")
    assert (list(found.answers), found.more) == (["A b\nc"], {"id": 3})


@pytest.mark.parametrize(
    "change", [{"image": ["a.png", "b.png"]}, {"conversations": TURNS[:1]}, {"conversations": None}]
)
def test_records_of_other_tasks(change: dict[str, object]) -> None:
    with pytest.raises(RejectedRow, match=next(iter(change))):
        read({"image": "en_1.png", "conversations": TURNS, **change})
