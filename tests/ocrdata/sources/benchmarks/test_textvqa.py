from ocrdata.sources.benchmarks.textvqa import read


def test_all_ten_answers_are_kept_and_the_commonest_is_the_samples() -> None:
    answers = ["nokia"] * 3 + ["toshiba"] + ["Nokia"] * 5 + ["nokia"]
    found = read(
        {
            "question": "what brand?", "image_id": "003a8ae2ef43b901", "image_classes": ["Phone"],
            "flickr_original_url": "u", "answers": answers, "question_tokens": ["what", "brand"],
            "question_id": 34602, "set_name": "val", "image_width": 1024,
        }
    )  # fmt: skip
    assert found.image == "003a8ae2ef43b901.jpg"
    assert list(found.answers) == ["Nokia", "nokia", "toshiba"]
    assert found.facts == {"answers": answers}
    assert found.more == {"question_id": 34602, "image_width": 1024}
