import random
import re

from ocrdata.sample import check
from ocrdata.sources.sums import TEMPLATES, SumsSource, make_turn


def test_a_row_is_a_function_of_seed_and_number() -> None:
    whole = list(SumsSource(20, seed=3).rows(0, 20))
    assert list(SumsSource(50, seed=3).rows(7, 20)) == whole[7:]
    assert list(SumsSource(20, seed=4).rows(0, 20)) != whole
    assert SumsSource(20).count() == 20
    assert SumsSource(20, seed=1).provenance != SumsSource(20, seed=2).provenance
    for _, sample in whole:
        check(sample)  # type: ignore[arg-type]
        assert 1 <= sample.turns <= 3  # type: ignore[union-attr]


def test_answers_are_right() -> None:
    pick = random.Random(0)
    seen = set()
    for _ in range(500):
        question, answer = make_turn(pick)
        first, second = (int(number) for number in re.findall(r"\d+", question))
        result = int(re.findall(r"\d+", answer)[0])
        if "larger" in question:
            wanted = max(first, second)
        elif "lost" in question or " - " in question:
            wanted = first - second
        else:
            wanted = first + second
        assert result == wanted, question
        seen.update(word for word in ("+", "-", "finds", "lost", "larger") if word in question)
    assert len(seen) == len(TEMPLATES)
