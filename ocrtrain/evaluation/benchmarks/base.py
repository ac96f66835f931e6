"""What a benchmark is: a function that measures one answer, with the facts that make its scores
comparable with those of others.

To add one, write a file in this folder that ends with

    BENCHMARK = Benchmark(name="mine", ..., measure=measure)

where `measure(answer, gold)` returns a `Measured`, add it to `registry.BENCHMARKS`, and write a
source for its layout (`ocrdata.sources.benchmarks.questions`), whose samples name the benchmark. A
measure is a pure function: of the same answer and gold it gives the same values, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Gold(NamedTuple):
    """What an answer is compared with: the right answers, the first of which is the sample's, the
    kind of its question, and the facts that the source kept for it; `tokens` of the first answer
    under the model's tokenizer and `slots`, the positions of the question's images, 0 if unknown.
    """

    answers: tuple[str, ...]
    kind: str
    facts: Mapping[str, Any]
    tokens: int = 0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a measure: of an answer, or of a part of it, such as one test or one table.
    `groups` says which rows of the table it counts in: by the name of a division, such as 'question
    type', one or several of its parts."""

    measure: str
    value: float
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        """In a line of the answers file."""
        return [self.measure, self.value, {name: list(of) for name, of in self.groups.items()}]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one answer. `left_out` counts what the benchmark would measure and was not
    measured, by the reason. `right` says whether the answer counts as right, in reports of single
    answers; None where that means nothing."""

    values: tuple[Value, ...]
    right: bool | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def to_json(self, name: str) -> dict[str, Any]:
        """In a line of the answers file."""
        line: dict[str, Any] = {"name": name, "values": [one.to_json() for one in self.values]}
        if self.right is not None:
            line["right"] = self.right
        if self.left_out:
            line["left_out"] = dict(self.left_out)
        return line


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the table. `percent` values are shares between 0 and 1, shown times 100; others
    are shown as they are. `lower` is better for distances."""

    name: str
    percent: bool = True
    lower: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark. The first of `columns` decides which answers are the worst."""

    name: str
    title: str
    version: str
    """Of the data, and of the definition."""
    definition: str
    """Where the measure is defined, and what of it was followed where sources differ."""
    normalisation: str
    """What is made equal before texts are compared; and what is not."""
    checked: str
    """What measure and layout were checked against, and what could not be checked."""
    columns: tuple[Measure, ...]
    measure: Callable[[str, Gold], Measured]
    """Of an answer. Raises RejectedRow if the sample does not have what it needs."""
    macro: str = ""
    """A division: the score is the mean over its parts, not over all values."""
    has_gold_text: bool = True
    """Whether the sample's answer is a text to be read, so that it has a loss."""
    packages: tuple[str, ...] = ()
    """Modules beyond the product's own dependencies (extra `benchmarks`)."""
