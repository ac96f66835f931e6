from ocrdata.sources.benchmarks.docvqa import read

RECORD = {
    "questionId": 337, "question": "what is the date?", "question_types": ["handwritten", "form"],
    "image": "documents/xnbl0037_1.png", "docId": 279, "ucsf_document_id": "xnbl0037",
    "ucsf_document_page_no": "1", "answers": ["1/8/93", "1/8/1993"], "data_split": "val",
}  # fmt: skip


def test_a_record() -> None:
    found = read(RECORD)
    assert (found.image, found.question) == ("documents/xnbl0037_1.png", "what is the date?")
    assert list(found.answers) == ["1/8/93", "1/8/1993"]
    assert found.facts == {"question types": ["handwritten", "form"]}
    assert found.more["questionId"] == 337 and "data_split" not in found.more


def test_a_file_without_types() -> None:
    record = {name: value for name, value in RECORD.items() if name != "question_types"}
    assert read(record).facts == {"question types": []}
