"""Renders the worst answers of an evaluation as one HTML page with their images, which needs no
network, no script and no other file.

In: lines of the answers file, and the shards that they are about. Out: the page in pieces, one
answer in memory at a time. Images are small JPEGs in the page. All text is escaped, and the page's
content security policy forbids scripts and requests. The same answers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ocrdata.errors import ImageError
from ocrdata.images.thumbnail import data_url
from ocrdata.reading.view import Shards
from ocrtrain.evaluation.worst import badness
from ocrtrain.inspection.pages.batch import POLICY
from ocrtrain.inspection.token_spans import visible

IMAGES_SHOWN = 4
"""Of one answer."""
SIDE = 640
"""Longest side of an image on the page in px: a JPEG of some 60 KB."""
CHARACTERS_SHOWN = 3_000
"""Of one text; a page that was not read may have 100,000."""


class Case(NamedTuple):
    """One answer as the page shows it: its place, its texts cut, its scores as (name, value)."""

    place: str
    badness: float
    question: str
    gold: str
    answer: str
    scores: list[tuple[str, str]]
    images: list[str]
    problem: str


def worst_page(
    lines: Sequence[Mapping[str, Any]], sources: Mapping[str, Shards], name: str, instruction: str
) -> Iterator[str]:
    """Yields the page in pieces; `name` is that of the answers file."""
    return ENVIRONMENT.get_template("worst.html.jinja").generate(
        policy=POLICY,
        name=name,
        instruction=instruction,
        count=len(lines),
        cases=(_case(line, sources[line["source"]]) for line in lines),
    )


def _case(line: Mapping[str, Any], shards: Shards) -> Case:
    images, problem = _images(line, shards)
    return Case(
        place=f"{line['source']}, {line['shard']}: {line['key']}, turn {line['turn']}",
        badness=badness(line),
        question=_cut(line["question"]),
        gold=_cut("\n".join(line.get("golds", [line["gold"]]))),
        answer=_cut(line["answer"]),
        scores=_scores(line),
        images=images,
        problem=problem,
    )


def _images(line: Mapping[str, Any], shards: Shards) -> tuple[list[str], str]:
    """The images of an answer's sample as data URLs, and what of them is not shown."""
    if "position" not in line:  # begun by an older version
        return [], "its images are not shown: the answers file does not say where they are"
    sample = Shards(shards.shard_set, range(len(shards.shard_set)))[line["position"]]
    more = len(sample.images) - IMAGES_SHOWN
    images, problem = [], f"{more} more images" if more > 0 else ""
    for data in sample.images[:IMAGES_SHOWN]:
        try:
            images.append(data_url(data, SIDE))
        except ImageError as exc:
            problem = str(exc)
    return images, problem


def _scores(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    measured = line["benchmark"]["values"] if "benchmark" in line else []
    values = [(name, f"{value:.3f}") for name, value, _ in measured]
    shown = [("kind", line["kind"]), *values[:12], ("NED", f"{line['scores']['ned']:.3f}")]
    shown.append(("characters", f"{line['scores']['length']:,}"))
    if "gain" in line:
        shown.append(("gain of the image", f"{line['gain']:+.3f}"))
    if line["repeats"]:
        shown.append(("ended", "in a loop"))
    elif not line["finished"]:
        shown.append(("ended", "cut off"))
    return shown


def _cut(text: str) -> str:
    more = len(text) - CHARACTERS_SHOWN
    return f"{text[:CHARACTERS_SHOWN]} ... ({more:,} more characters)" if more > 0 else text


def _visible_lines(text: str) -> str:
    """A text whose line feeds stay and whose other invisible characters show."""
    return "\n".join(map(visible, text.split("\n")))


ENVIRONMENT = Environment(
    loader=PackageLoader("ocrtrain.inspection.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"visible": visible, "visible_lines": _visible_lines}
