"""What an evaluation asks: every turn by itself, images swapped within a kind, scores by kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import ShardError
from ocrdata.reading.view import SampleRef
from ocrdata.sample import Sample, from_turns, image_parts, text_of, text_part
from ocrdata.tokens.rendering import render, render_prompt
from ocrtrain.evaluation import answers
from ocrtrain.evaluation.answers import (
    AnswerRecord,
    Asking,
    QuestionRunner,
    ScoreTable,
    SwappedAnswer,
    Turn,
    turns_of,
    turns_with_history,
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
    assert [turn.golds for turn in turns_of(sample)] == [("a",), ("b",), ("c",)]

    placed = from_turns([("In <image> what?", "a"), ("B?", "b")], [picture], source="", meta={},
                        placeholder="<image>")  # fmt: skip
    assert contents(placed) == [["In ", "#", " what?"], ["#", "B?"]]

    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    with_system = Sample(messages=[system, *sample.messages], images=sample.images)
    for turn in turns_of(with_system):
        assert [message["role"] for message in turn.messages] == ["system", "user"]
        assert text_of(turn.messages[0]) == "Be brief."

    sample.messages[1]["weight"] = 0  # what it says may be wrong
    assert [(turn.number, turn.kind, turn.golds) for turn in turns_of(sample)] == [
        (1, "value", ("b",)),
        (2, "all", ("c",)),
    ]


SPREAD = [("<image>A?", "a"), ("B <image> and <image>?", "b"), ("C?", "c"), ("D?\n<image>", "d")]


def spread(turns: Sequence[tuple[str, str]], system: str = "") -> Sample:
    """Images where the turns show them, each of its own colour."""
    count = sum(user.count("<image>") for user, _ in turns)
    pictures = [small.png((9, 9, number)) for number in range(count)]
    sample = from_turns(list(turns), pictures, source="", meta={}, placeholder="<image>")
    if system:
        sample.messages.insert(0, {"role": "system", "content": [text_part(system)]})
    return sample


def test_a_turn_that_shows_images_is_asked_about_these() -> None:
    sample = spread(SPREAD)
    assert contents(sample) == [
        ["#", "A?"], ["B ", "#", " and ", "#", "?"], ["#", "#", "#", "C?"], ["D?\n", "#"],
    ]  # fmt: skip
    assert [turn.images for turn in turns_of(sample)] == [
        range(1), range(1, 3), range(3), range(3, 4),
    ]  # fmt: skip


@given(
    turns=st.lists(
        st.tuples(st.sampled_from([*(user for user, _ in SPREAD), "Go on"]), st.just("so")),
        min_size=1, max_size=4,
    ),
    system=st.sampled_from(["", "Be brief."]),
)  # fmt: skip
def test_with_its_history_a_turn_is_what_is_read_in_training(
    turns: list[tuple[str, str]], system: str
) -> None:
    sample, tokenizer, slots = spread(turns, system), small.tokenizer(), 2
    whole = render(sample.messages, tokenizer, [slots] * len(sample.images))
    questions = turns_with_history(sample)
    assert len(questions) == len(turns)
    for question in questions:
        prompt = render_prompt(question.messages, tokenizer, [slots] * len(question.images))
        answer_starts = whole.ends[question.number] - len(tokenizer.encode("so")) - 1
        assert prompt.ids.tolist() == whole.ids[:answer_starts].tolist()
        assert question.images == range(image_parts(question.messages))


@pytest.mark.parametrize("turns", [turns_of, turns_with_history])
def test_a_turn_reads_the_images_it_places(
    tmp_path: Path, turns: Callable[[Sample], list[Turn]]
) -> None:
    names = [("red", "blue"), ("green", "red"), ("blue", "grey"), ("grey", "green")]
    question = "<image>" + small.QUESTIONS["colour"]
    samples = [
        from_turns(
            [(question, first), (question, second)],
            [small.png(small.COLOURS[first]), small.png(small.COLOURS[second])],
            source="", meta={"kinds": ["one", "two"]}, placeholder="<image>",
        )
        for first, second in names
    ]  # fmt: skip
    shards = small.write(tmp_path / "spread-000.tar", samples)
    model = small.trained(tmp_path).model()
    runner = QuestionRunner(model, small.tokenizer(), shards, Decoding(16), asking=Asking(turns))
    partners = runner.partners()
    found = list(runner.records(partners))
    golds = [name for pair in names for name in pair]
    assert [record.golds for record in found] == [(gold,) for gold in golds]
    asked = [record for record in found if record.turn == 0 or turns is turns_of]
    assert [record.answer.text for record in asked] == [record.golds[0] for record in asked]
    for record in asked:  # the answer about another sample's image is that image's
        assert record.swapped is not None
        other = names[record.swapped.ref.position][record.turn]
        assert record.swapped.answer.text == other


def test_turns_that_show_the_same_image_are_not_swapped_with_each_other(tmp_path: Path) -> None:
    red, *others = (small.png(small.COLOURS[name]) for name in ("red", "blue", "green"))
    samples = [
        from_turns([("<image>A?", "a"), ("<image>B?", "b")], [red, other], source="",
                   meta={"kinds": ["first", "second"]}, placeholder="<image>")
        for other in others
    ]  # fmt: skip
    shards = small.write(tmp_path / "shared-000.tar", samples)
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    assert runner.partners() == {("second", range(1, 2)): {0: 1, 1: 0}}


def with_meta(turns: int, **meta: object) -> Sample:
    return from_turns([("How many?", "10")] * turns, [], source="", meta=dict(meta))


@pytest.mark.parametrize(
    ("sample", "golds"),
    [
        (with_meta(1), [("10",)]),
        (with_meta(1, golds=[["ten", "10", " "]]), [("10", "ten")]),
        (with_meta(2, golds=[[], ["ten"]]), [("10",), ("10", "ten")]),
        (with_meta(1, answers=["10", "ten"]), [("10", "ten")]),  # as conversion keeps DocVQA's
        (with_meta(1, answer=[10, 10.5]), [("10", "10.5")]),
        (with_meta(1, answers=["ten", "10"]), [("10",)]),  # a list of something else
        (with_meta(1, answers="10 or ten"), [("10",)]),
        (with_meta(2, answers=["10", "ten"]), [("10",), ("10",)]),
    ],
)
def test_every_gold_answer_counts(sample: Sample, golds: list[tuple[str, ...]]) -> None:
    assert [turn.golds for turn in turns_of(sample)] == golds


@pytest.mark.parametrize("golds", ["ten", ["ten"], [["ten"], ["ten"]], [[10]], {}, []])
def test_gold_answers_in_another_form_are_an_error_that_names_the_sample(
    tmp_path: Path, golds: object
) -> None:
    shards = small.write(tmp_path / "golds-000.tar", [with_meta(1), with_meta(1, golds=golds)])
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    for call in (runner.partners, lambda: list(runner.records({}))):
        with pytest.raises(ShardError, match=r"golds-000\.tar: sample 000000001: meta\.golds"):
            call()


def test_an_answer_that_equals_another_gold_answer_is_right(tmp_path: Path) -> None:
    square = small.coloured("red")
    samples = [replace(square, meta={"golds": golds}) for golds in ([["crimson"], ["R"]], [[], []])]
    for sample in samples:
        for message in sample.messages[1::2]:
            message["content"] = [text_part("Unknown.")]
    samples[0].meta["golds"] = [["red"], ["r", "R"]]
    shards = small.write(tmp_path / "golds-000.tar", samples)
    model = small.trained(tmp_path).model()
    found = list(QuestionRunner(model, small.tokenizer(), shards, Decoding(8)).records({}))
    assert [record.score.exact for record in found] == [True, True, False, False]
    assert found[1].to_json()["golds"] == ["Unknown.", "r", "R"]
    assert "golds" not in found[2].to_json()


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
        ("a", range(1)): [0, 1, 2],
        ("b", range(1)): [0, 2, 3],
    }
    for found in partners.values():
        assert sorted(found) == sorted(found.values())
        assert all(position != other for position, other in found.items())

    records = list(runner.records(partners))
    assert len(records) == 11
    assert [r.swapped is not None for r in records] == [True] * 6 + [False, True] + [False] * 3
    for record in records:
        if record.swapped is not None:
            wanted = partners[record.kind, range(1)][record.ref.position]
            assert record.swapped.ref.position == wanted


def record(kind: str, answer: str, swapped: str | None) -> AnswerRecord:
    ref = SampleRef("x-000.tar", "000000001", 1, "0")
    other = None
    if swapped is not None:
        other = SwappedAnswer(ref, Answer(swapped, 1, True), score(swapped, "10"), 0.5)
    found = Answer(answer, 3, kind != "b")
    return AnswerRecord(ref, 0, kind, "How many?", ("10",), found, score(answer, "10"), other)


def test_scores_are_summed_up_by_kind() -> None:
    scores = ScoreTable()
    for one in (record("a", "10", "10"), record("a", "10.4", "7"), record("b", "12", None)):
        scores.add(one.to_json())
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
        scores.add(record("all", answer, None).to_json())
    assert "kinds" not in scores.summary() and "exchanged" not in scores.summary()["all"]
    head, *rows, note = scores.table().splitlines()
    assert "5 %" in note and "0 answers" in note
    assert head.split() == [
        "kind", "of", "question", "answers", "relaxed", "exact", "ANLS", "NED", "length", "gold",
    ]  # fmt: skip
    assert [row.split()[:4] for row in rows] == [["all", "2", "50.0%", "50.0%"]]


def test_cut_off_answers_are_counted() -> None:
    scores = ScoreTable()
    for one in (record("b", "1", None), record("b", "10", "10"), record("a", "10", None)):
        scores.add(one.to_json())
    assert scores.summary()["cut_off"] == 2
    last = scores.table().splitlines()[-1]
    assert last.startswith("2 answers ") and "--max-new-tokens" in last


def test_answers_in_a_loop_are_counted_apart_from_those_cut_off() -> None:
    scores = ScoreTable()
    for one in (record("b", "1", None), record("a", "10", None)):
        scores.add(one.to_json())
    loop = replace(record("b", "1", None), answer=Answer("1", 1, finished=False, repeats=True))
    scores.add(loop.to_json())
    summary = scores.summary()
    assert (summary["cut_off"], summary["repeating"], summary["repeats_at"]) == (1, 1, 1)
    assert "1 answer was stopped in a loop (--stop-repeats)" in scores.table()


def test_right_answers_that_are_another_year_are_told() -> None:
    scores = ScoreTable()
    for answer, gold in (("2008", "2010"), ("2010", "2010"), ("1500", "2010")):
        one = replace(record("all", answer, None), score=score(answer, gold))
        scores.add(one.to_json())
    assert "1 answer was right only as another year" in scores.table()
    assert scores.summary()["all"]["other_year"] == pytest.approx(1 / 3)


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
        scores.add(record(*row).to_json())
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
        "shard", "key", "position", "turn", "kind", "question", "gold", "answer", "tokens",
        "finished", "repeats", "scores",
    ]  # fmt: skip
    assert (line["answer"], line["gold"], line["tokens"]) == ("12", "10", 3)
    assert line["scores"] == asdict(score("12", "10"))
    swapped = record("a", "12", "7").to_json()
    assert swapped["gain"] == 0.5
    assert swapped["exchanged"] == {
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
        {name: value for name, value in line.items() if name not in ("exchanged", "gain")}
        for line in whole
    ]


def test_of_samples_with_the_same_images_only_the_first_is_swapped(tmp_path: Path) -> None:
    names = ["red", "red", "blue", "green", "blue"]
    shards = small.write(tmp_path / "same-000.tar", [small.coloured(name) for name in names])
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    partners = runner.partners()
    assert {kind for kind, _ in partners} == set(small.QUESTIONS)
    for found in partners.values():
        assert sorted(found) == sorted(found.values()) == [0, 2, 3]


def test_samples_without_images_or_a_partner_are_not_swapped(tmp_path: Path) -> None:
    samples = [small.chat(n) for n in range(3)] + [small.coloured("red")]
    shards = small.write(tmp_path / "mixed-000.tar", samples)
    runner = QuestionRunner(small.untrained(), small.tokenizer(), shards, Decoding(2))
    assert runner.partners() == {}
    assert all(record.swapped is None for record in runner.records({}))
