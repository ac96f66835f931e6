from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, check, text_of
from ocrdata.sources.annotations import ANSWERS, QUESTIONS, AnnotationFormat, plain_text
from ocrdata.sources.conversations import Image
from tests.support.numbered import square

RED, BLUE = square("red"), square("blue")


def sample_of(
    record: dict[str, Any], caption: str | None = None, form: AnnotationFormat | None = None
) -> Sample:
    def read(image: Image) -> bytes:
        assert isinstance(image, bytes)
        return image

    form = form or AnnotationFormat()
    sample = form.sample(record, [RED, BLUE], read, caption=caption, origin="mine")
    check(sample)
    assert sample.images == [RED, BLUE]
    return sample


def turns(sample: Sample) -> list[tuple[str, str]]:
    texts = list(map(text_of, sample.messages))
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_question_and_answer_by_their_usual_names(question: str, answer: str) -> None:
    sample = sample_of({question: "q", answer: "a", "id": 7})
    assert turns(sample) == [("q", "a")]
    assert (sample.meta, sample.source) == ({"id": 7}, "mine")


@pytest.mark.parametrize(
    ("record", "caption", "form", "expected"),
    [
        ({"text": "a"}, None, {}, ("", "a")),
        ({"text": "a"}, None, {"prompt": "Read."}, ("Read.", "a")),
        ({}, "c", {"prompt": "Read."}, ("Read.", "c")),
        ({"caption": "other"}, "c", {}, ("", "c")),
        ({"question": "q"}, "c", {}, ("q", "c")),
        ({"question": "q", "answer": "a"}, "c", {"prompt": "Read."}, ("q", "a")),
        ({"ocr": "a", "text": "b"}, "c", {"answer": "ocr"}, ("", "a")),
        ({"ask": "q", "text": "b"}, None, {"question": "ask"}, ("q", "b")),
        ({"ask": "q", "ocr": "a", "question": "b"}, "c", {"question": "ask", "answer": "ocr"},
         ("q", "a")),
        ({"question": "q", "answers": ["a", "b"]}, None, {}, ("q", "a")),
        ({"question": "q", "answer": 0.5}, None, {}, ("q", "0.5")),
        ({"question": "", "text": "a"}, None, {}, ("", "a")),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, None, {}, ("Add.\n1 2", "3")),
        ({"instruction": "Hi", "input": "", "output": "a"}, None, {}, ("Hi", "a")),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "text": "b"}, "c", {"prompt": "Read."}, ("q", "a")),
        ({"conversations": [{"from": "human", "value": "<image>q<image>"},
                            {"from": "gpt", "value": "a"}]}, None, {}, ("q", "a")),
        ({"texts": [{"user": "q", "assistant": "a"}]}, "c", {}, ("q", "a")),
        ({"messages": None, "text": "a"}, None, {}, ("", "a")),
        ({"messages": [1], "text": "a"}, None, {"answer": "text"}, ("", "a")),
    ],
)  # fmt: skip
def test_what_is_used_of_a_record_and_a_caption(
    record: dict[str, Any], caption: str | None, form: dict[str, str], expected: tuple[str, str]
) -> None:
    assert turns(sample_of(record, caption, AnnotationFormat(**form))) == [expected]


def test_what_is_not_used_is_kept_in_the_meta() -> None:
    sample = sample_of({"text": "a", "caption": "b", "url": "u", "source": "web"}, "c")
    assert sample.meta == {"text": "a", "caption": "b", "url": "u"} and sample.source == "web"
    assert sample_of({"instruction": "q", "input": "i", "output": "a"}).meta == {}
    assert sample_of({"question": "q", "input": "i", "answer": "a"}).meta == {"input": "i"}
    alternatives = sample_of({"question": "q", "answers": ["a", "b"]})
    assert alternatives.meta == {"answers": ["a", "b"]}


@pytest.mark.parametrize(
    ("record", "caption", "form", "reason"),
    [
        ({"file_name": "a.png", "n": 1}, None, {}, "no answer; its fields are file_name, n"),
        ({}, None, {}, "fields are none"),
        ({"text": "a"}, "c", {"answer": "ocr"}, "no field ocr .*text"),
        ({"text": "a"}, None, {"question": "ask"}, "ask, the question, is missing"),
        ({"question": ["q"], "answer": "a"}, None, {}, "question, the question, is no text"),
        ({"instruction": "q", "input": 7, "output": "a"}, None, {}, "input, .* is no text"),
        ({"question": "q", "answer": {"a": 1}}, None, {}, "answer, the answer, is an object"),
        ({"question": "q", "answers": [["a"]]}, None, {}, "answers, the answer, is a list"),
        ({"messages": "no"}, "c", {}, "messages is not a list"),
        ({}, " \n", {}, "no assistant text"),
    ],
)
def test_rejected_rows(
    record: dict[str, Any], caption: str | None, form: dict[str, str], reason: str
) -> None:
    with pytest.raises(RejectedRow, match=reason):
        sample_of(record, caption, AnnotationFormat(**form))


@pytest.mark.parametrize(
    ("value", "text"), [("", ""), ("7", "7"), (7, "7"), (1.5, "1.5"), (True, "true")]
)
def test_scalars_as_answers(value: Any, text: str) -> None:
    assert plain_text(value, "label") == text


def test_null_is_no_answer() -> None:
    with pytest.raises(RejectedRow, match="label, the answer, is null"):
        plain_text(None, "label")
