import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sources.benchmarks.ocrbench import read

RECORD = {
    "dataset_name": "ctw", "id": 54, "image_path": "ctw/imgs/55.jpg", "answers": ["A", "B"],
    "question": "what is written in the image?", "type": "Irregular Text Recognition",
}  # fmt: skip


def test_a_record() -> None:
    found = read(RECORD)
    assert (found.image, list(found.answers)) == ("ctw/imgs/55.jpg", ["A", "B"])
    assert found.kind == "Irregular Text Recognition"
    assert found.facts == {"type": found.kind, "data set": "ctw"}
    assert list(read({**RECORD, "answers": "CENTRE"}).answers) == ["CENTRE"]


@pytest.mark.parametrize("name", ["type", "dataset_name", "question", "image_path", "answers"])
def test_a_record_without_one_of_its_fields(name: str) -> None:
    with pytest.raises(RejectedRow, match=name):
        read({**RECORD, name: None})
