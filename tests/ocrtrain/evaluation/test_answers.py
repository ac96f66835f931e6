"""What an evaluation asks: every turn by itself, images swapped within a kind, scores by kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.reading.view import SampleRef
from ocrdata.sample import Sample, from_turns, text_of
from ocrtrain.evaluation import answers
from ocrtrain.evaluation.answers import (
    AnswerRecord,
    QuestionRunner,
    ScoreTable,
    SwappedAnswer,
    turns_of,
)
from ocrtrain.evaluation.generation import Answer, Decoding
from ocrtrain.evaluation.scores import score
from tests.support import small


def contents(sample: Sample) -> list[Sequence[str]]:
    """What each question consists of: '#' for an image, else the text."""
    return [
        [part.get("text", "#") for part in turn.messages[-1]["content"]]
        for turn in turns_of(sample)
    ]


def test_every_turn_is_a_question_about_all_images_of_its_sample() -> None:
    picture = small.png((1, 2, 3))
    meta = {"kinds": ["title", "value"]}
    sample = from_turns(
        [("A?", "a"), ("B?", "b"), ("C?", "c")], [picture] * 2, source="", meta=meta
    )
    assert contents(sample) == [["#", "#", "A?"], ["#", "#", "B?"], ["#", "#", "C?"]]
    assert [turn.kind for turn in turns_of(sample)] == ["title", "value", "all"]
    assert [turn.gold for turn in turns_of(sample)] == ["a", "b", "c"]

    placed = from_turns([("In <image> what?", "a"), ("B?", "b")], [picture], source="", meta={},
                        placeholder="<image>")  # fmt: skip
    assert contents(placed) == [["In ", "#", " what?"], ["#", "B?"]]

    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    with_system = Sample(messages=[system, *sample.messages], images=sample.images)
    for turn in turns_of(with_system):
        assert [message["role"] for message in turn.messages] == ["system", "user"]
        assert text_of(turn.messages[0]) == "Be brief."

    sample.messages[1]["weight"] = 0  # what it says may be wrong
    assert [(turn.number, turn.kind, turn.gold) for turn in turns_of(sample)] == [
        (1, "value", "b"),
        (2, "all", "c"),
    ]


def test_images_are_swapped_within_a_kind_and_never_with_oneself(tmp_path: Path) -> None:
    kinds = [["a", "b"], ["a", "a"], ["b", "a"], ["c", "b"], []]
    pictures = [small.png((1, 2, row)) for row in range(len(kinds))]
    samples = [
        from_turns([("1?", "x"), ("2?", "y")], [picture], source="", meta={"kinds": found})
        for found, picture in zip(kinds, pictures, strict=True)
    ]
    samples.append(from_turns([("1?", "x")], pictures[:2], source="", meta={"kinds": ["a"]}))
    shards = small.write(tmp_path / "kinds-000.tar", samples)
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    partners = runner.partners()
    assert {kind: sorted(found) for kind, found in partners.items()} == {
        "a": [0, 1, 2],
        "b": [0, 2, 3],
    }
    for found in partners.values():
        assert sorted(found) == sorted(found.values())
        assert all(position != other for position, other in found.items())

    records = list(runner.records(partners))
    assert len(records) == 11
    assert [r.swapped is not None for r in records] == [True] * 6 + [False, True] + [False] * 3
    for record in records:
        if record.swapped is not None:
            wanted = partners[record.kind][record.ref.position]
            assert record.swapped.ref.position == wanted


def record(kind: str, answer: str, swapped: str | None) -> AnswerRecord:
    ref = SampleRef("x-000.tar", "000000001", 1, "0")
    other = None
    if swapped is not None:
        other = SwappedAnswer(ref, Answer(swapped, 1, True), score(swapped, "10"))
    found = Answer(answer, 3, kind != "b")
    return AnswerRecord(ref, 0, kind, "How many?", "10", found, score(answer, "10"), other)


def test_scores_are_summed_up_by_kind() -> None:
    scores = ScoreTable()
    for one in (record("a", "10", "10"), record("a", "10.4", "7"), record("b", "12", None)):
        scores.add(one)
    summary = scores.summary()
    assert summary["all"]["relaxed"] == pytest.approx(2 / 3)
    assert summary["all"]["exact"] == pytest.approx(1 / 3)
    assert summary["all"]["exchanged"]["answers"] == 2
    assert summary["kinds"]["a"]["relaxed"] == 1.0
    assert summary["kinds"]["a"]["exchanged"]["relaxed"] == 0.5
    assert "exchanged" not in summary["kinds"]["b"]
    assert summary["cut_off"] == 1
    table = scores.table().splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["a", "b", "all"]
    assert table[1].endswith("50.0% of 2")


def test_the_table_without_swapped_images_and_without_kinds() -> None:
    scores = ScoreTable()
    for answer in ("10", "12"):
        scores.add(record("all", answer, None))
    assert "kinds" not in scores.summary() and "exchanged" not in scores.summary()["all"]
    head, *rows = scores.table().splitlines()
    assert head.split() == [
        "kind", "of", "question", "answers", "relaxed", "exact", "NED", "length", "gold",
    ]  # fmt: skip
    assert [row.split()[:4] for row in rows] == [["all", "2", "50.0%", "50.0%"]]


def test_cut_off_answers_are_counted() -> None:
    scores = ScoreTable()
    for one in (record("b", "1", None), record("b", "10", "10"), record("a", "10", None)):
        scores.add(one)
    assert scores.summary()["cut_off"] == 2
    last = scores.table().splitlines()[-1]
    assert last.startswith("2 answers ") and "--max-new-tokens" in last


def test_a_summary_of_no_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answers"):
        ScoreTable().summary()


answered = st.tuples(
    st.sampled_from(["all", "a", "b"]),
    st.sampled_from(["10", "10.4", "12", "", "ten"]),
    st.none() | st.sampled_from(["10", "7"]),
)


@given(rows=st.lists(answered, min_size=1, max_size=20))
def test_overall_scores_are_the_weighted_means_of_the_kinds(
    rows: list[tuple[str, str, str | None]],
) -> None:
    scores = ScoreTable()
    for row in rows:
        scores.add(record(*row))
    summary = scores.summary()
    kinds = summary.get("kinds", {"all": summary["all"]})
    assert set(kinds) == {kind for kind, _, _ in rows}
    parts = [(kinds.values(), summary["all"], len(rows))]
    with_swapped = [kind["exchanged"] for kind in kinds.values() if "exchanged" in kind]
    others = sum(other is not None for _, _, other in rows)
    assert ("exchanged" in summary["all"]) == bool(others)
    if others:
        parts.append((with_swapped, summary["all"]["exchanged"], others))
    for means, whole, count in parts:
        assert whole["answers"] == sum(one["answers"] for one in means) == count
        for name in ("relaxed", "exact", "ned", "length", "gold_length"):
            weighted = sum(one[name] * one["answers"] for one in means)
            assert whole[name] == pytest.approx(weighted / count)


def test_a_line_of_the_answers_file() -> None:
    line = record("a", "12", None).to_json()
    assert list(line) == [
        "shard", "key", "turn", "kind", "question", "gold", "answer", "tokens", "finished",
        "scores",
    ]  # fmt: skip
    assert (line["answer"], line["gold"], line["tokens"]) == ("12", "10", 3)
    assert line["scores"] == asdict(score("12", "10"))
    other = record("a", "12", "7").to_json()["exchanged"]
    assert other == {
        "shard": "x-000.tar", "key": "000000001", "answer": "7", "scores": asdict(score("7", "10")),
    }  # fmt: skip
    assert json.loads(json.dumps(line)) == line


@pytest.mark.parametrize("kinds", ["title", 7, {"0": "title"}, None, []])
def test_kinds_that_are_not_a_list_are_ignored(kinds: object) -> None:
    sample = from_turns([("A?", "a")], [], source="", meta={"kinds": kinds})
    assert [turn.kind for turn in turns_of(sample)] == ["all"]


def test_answers_do_not_depend_on_the_number_of_samples_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = small.squares(tmp_path, rows=7)
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(3))
    partners = runner.partners()
    whole = [record.to_json() for record in runner.records(partners)]
    assert [(line["key"], line["turn"]) for line in whole] == [
        (f"{row:09d}", turn) for row in range(7) for turn in range(2)
    ]
    monkeypatch.setattr(answers, "SAMPLES_AT_ONCE", 2)
    assert [record.to_json() for record in runner.records(partners)] == whole
    alone = [record.to_json() for record in runner.records({})]
    assert [dict(line) for line in alone] == [
        {name: value for name, value in line.items() if name != "exchanged"} for line in whole
    ]


def test_of_samples_with_the_same_images_only_the_first_is_swapped(tmp_path: Path) -> None:
    names = ["red", "red", "blue", "green", "blue"]
    shards = small.write(tmp_path / "same-000.tar", [small.coloured(name) for name in names])
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    partners = runner.partners()
    assert set(partners) == set(small.QUESTIONS)
    for found in partners.values():
        assert sorted(found) == sorted(found.values()) == [0, 2, 3]


def test_samples_without_images_or_a_partner_are_not_swapped(tmp_path: Path) -> None:
    samples = [small.chat(n) for n in range(3)] + [small.coloured("red")]
    shards = small.write(tmp_path / "mixed-000.tar", samples)
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    assert runner.partners() == {}
    assert all(record.swapped is None for record in runner.records({}))
