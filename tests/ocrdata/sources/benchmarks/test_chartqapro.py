import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import text_of
from ocrdata.sources.benchmarks.chartqapro import ChartQaProRow
from tests.support.numbered import square

ROW = {
    "Question": ["How many?"], "Answer": ["12"], "Question Type": "Factoid", "Year": ["NO"],
    "Paragraph": "", "image": square("red"),
}  # fmt: skip


def test_a_row() -> None:
    sample = ChartQaProRow()(dict(ROW))
    assert [text_of(message) for message in sample.messages] == ["How many?", "12"]
    assert sample.images == [square("red")]
    assert sample.meta == {
        "benchmark": {"name": "chartqapro",
                      "facts": [{"question type": "Factoid", "year": ["NO"]}]},
        "golds": [[]],
        "kinds": ["Factoid"],
    }  # fmt: skip


def test_a_conversation_and_a_paragraph_are_part_of_the_question() -> None:
    row = {
        **ROW, "Question": ["First?", "Second?", "Third?"], "Answer": ["1", "2", "3"],
        "Question Type": "Conversational", "Paragraph": " Prices rose. ",
        "image": {"bytes": square("blue"), "path": None}, "Year": ["NO", "NO", "YES"],
    }  # fmt: skip
    sample = ChartQaProRow()(row)
    text = "Context: Prices rose.\n\nQ1: First?\nA1: 1\nQ2: Second?\nA2: 2\nQ3: Third?"
    assert [text_of(message) for message in sample.messages] == [text, "3"]
    assert sample.meta["benchmark"]["facts"][0]["year"] == ["NO", "NO", "YES"]
    several = ChartQaProRow()({**row, "Question Type": "Factoid", "Paragraph": None})
    assert text_of(several.messages[0]) == "Third?", "only a conversation has what was before"


@pytest.mark.parametrize(
    "change",
    [{"Question": []}, {"Answer": [" "]}, {"Question Type": None}, {"image": None},
     {"image": {"bytes": None, "path": "a.png"}}],
)  # fmt: skip
def test_rows_that_are_no_question(change: dict[str, object]) -> None:
    with pytest.raises(RejectedRow):
        ChartQaProRow()({**ROW, **change})
