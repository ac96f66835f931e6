from ocrdata.sources.benchmarks.infographicvqa import read


def test_a_record() -> None:
    found = read(
        {
            "questionId": 65718, "question": "Which is it?", "image_local_name": "37313.jpeg",
            "image_url": "u", "ocr_output_file": "37313.json", "answers": ["pinterest"],
            "data_split": "val", "answer_type": ["single span"], "evidence": ["text"],
            "operation/reasoning": [],
        }
    )  # fmt: skip
    assert (found.image, list(found.answers)) == ("37313.jpeg", ["pinterest"])
    assert found.facts == {
        "answer type": ["single span"], "evidence": ["text"], "operation": [],
    }  # fmt: skip
    assert found.more == {"questionId": 65718, "image_url": "u", "ocr_output_file": "37313.json"}
