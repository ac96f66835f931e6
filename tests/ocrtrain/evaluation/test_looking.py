"""Questions answered without looking."""

from __future__ import annotations

from typing import Any

from ocrtrain.evaluation.looking import (
    LISTED,
    answered_without_looking,
    is_right,
    looking_lines,
)


def line(number: int, right: bool | None, gain: float | None = None) -> dict[str, Any]:
    swapped: dict[str, Any] = {"key": "other", "answer": "a", "scores": {"relaxed": bool(right)}}
    names = ("source", "shard", "kind", "question", "gold")
    found = {**dict.fromkeys(names, "a"), "key": str(number), "turn": 0, "exchanged": swapped}
    found["scores"] = {"relaxed": True}
    return found if gain is None else {**found, "gain": gain}


def test_those_right_with_another_image_are_listed_by_their_gain() -> None:
    lines = [line(0, True, 0.5), line(1, False, 2.0), line(2, True, -0.1), line(3, False, 1.0)]
    lines.append({"scores": {"relaxed": True}})  # never asked again
    found = answered_without_looking(lines)
    assert found is not None
    assert (found["asked"], found["right"], found["without_gain"]) == (4, 2, 1)
    assert found["median_gain"] == 0.75
    assert [one["key"] for one in found["questions"]] == ["2", "0"]
    assert found["questions"][0]["shown"] == "other"
    text = looking_lines(found)
    assert "2 of 4" in text and "+0.750" in text


def test_a_benchmark_decides_what_is_right() -> None:
    one = line(0, False)
    assert is_right(one["exchanged"]) is False
    one["exchanged"]["benchmark"] = {"right": True}
    assert is_right(one["exchanged"]) is True
    one["exchanged"]["benchmark"] = {}
    assert is_right(one["exchanged"]) is None and answered_without_looking([one]) is None


def test_the_list_is_bounded() -> None:
    found = answered_without_looking(line(at, True, float(at)) for at in range(2 * LISTED))
    assert found is not None and found["right"] == 2 * LISTED
    assert [one["gain"] for one in found["questions"]] == list(range(LISTED))


def test_without_swapped_images_there_is_no_report() -> None:
    assert answered_without_looking([{"scores": {"relaxed": True}}]) is None
