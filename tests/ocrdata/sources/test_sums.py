import random
import re

from ocrdata.sample import check
from ocrdata.sources.sums import TEMPLATES, make_sample, make_turn


def test_rows_are_valid() -> None:
    for row in range(20):
        sample = make_sample(3, row)
        check(sample)
        assert 1 <= sample.turns <= 3


def test_answers_are_correct() -> None:
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
