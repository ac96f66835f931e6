from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.infographicvqa import measure


def test_groups_are_those_of_the_file() -> None:
    facts = {"answer type": ["non-span"], "evidence": ["text", "figure"], "operation": []}
    [value] = measure("pintrest", Gold(("pinterest",), "all", facts)).values
    assert value.value == 1 - 1 / 9
    assert value.groups == {
        "answer type": ("non-span",), "evidence": ("text", "figure"), "operation": (),
    }  # fmt: skip
