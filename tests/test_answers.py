"""What an evaluation asks: every turn by itself, images exchanged within a kind, scores by kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ocrdata.reader import SampleRef
from ocrdata.sample import Sample, from_turns, text_of
from ocrtrain.answers import Asker, Exchanged, Record, Tally, turns_of
from ocrtrain.generate import Answer, Decoding
from ocrtrain.scores import score
from tests import small


def contents(sample: Sample) -> list[Sequence[str]]:
    """What each question consists of: '#' for an image, else the text."""
    return [
        [part.get("text", "#") for part in turn.messages[-1]["content"]]
        for turn in turns_of(sample)
    ]


def test_every_turn_is_a_question_about_all_images_of_its_row() -> None:
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
    told = Sample(messages=[system, *sample.messages], images=sample.images)
    for turn in turns_of(told):
        assert [message["role"] for message in turn.messages] == ["system", "user"]
        assert text_of(turn.messages[0]) == "Be brief."


def test_images_are_exchanged_within_a_kind_and_never_with_oneself(tmp_path: Path) -> None:
    picture = small.png((1, 2, 3))
    kinds = [["a", "b"], ["a", "a"], ["b", "a"], ["c", "b"], []]
    samples = [
        from_turns([("1?", "x"), ("2?", "y")], [picture], source="", meta={"kinds": found})
        for found in kinds
    ]
    samples.append(from_turns([("1?", "x")], [picture] * 2, source="", meta={"kinds": ["a"]}))
    shards = small.write(tmp_path / "kinds-000.tar", samples)
    asker = Asker(small.untrained(), small.tokenizer(), shards, Decoding(2))
    partners = asker.partners()
    assert {kind: sorted(found) for kind, found in partners.items()} == {
        "a": [0, 1, 2],
        "b": [0, 2, 3],
    }
    for found in partners.values():
        assert sorted(found) == sorted(found.values())
        assert all(position != other for position, other in found.items())

    records = list(asker.records(partners))
    assert len(records) == 11
    assert [r.exchanged is not None for r in records] == [True] * 6 + [False, True] + [False] * 3
    for record in records:
        if record.exchanged is not None:
            wanted = partners[record.kind][record.ref.position]
            assert record.exchanged.ref.position == wanted


def record(kind: str, answer: str, exchanged: str | None) -> Record:
    ref = SampleRef("x-000.tar", "000000001", 1, "0")
    other = None
    if exchanged is not None:
        other = Exchanged(ref, Answer(exchanged, 1, True), score(exchanged, "10"))
    found = Answer(answer, 3, kind != "b")
    return Record(ref, 0, kind, "How many?", "10", found, score(answer, "10"), other)


def test_the_tally_tells_kinds_apart() -> None:
    tally = Tally()
    for one in (record("a", "10", "10"), record("a", "10.4", "7"), record("b", "12", None)):
        tally.add(one)
    summary = tally.summary()
    assert summary["all"]["relaxed"] == pytest.approx(2 / 3)
    assert summary["all"]["exact"] == pytest.approx(1 / 3)
    assert summary["all"]["exchanged"]["answers"] == 2
    assert summary["kinds"]["a"]["relaxed"] == 1.0
    assert summary["kinds"]["a"]["exchanged"]["relaxed"] == 0.5
    assert "exchanged" not in summary["kinds"]["b"]
    assert summary["cut_off"] == 1
    table = tally.table().splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["a", "b", "all"]
    assert table[1].endswith("50.0% of 2")
