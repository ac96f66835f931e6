"""The page: well-formed, closed in itself, and no text of a data set can become a part of it."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ocrdata.errors import TrainError
from ocrtrain.inspection.pages.batch import POLICY, page, token_html
from ocrtrain.inspection.rebuild import RebuiltBatch
from ocrtrain.inspection.report import Limits
from ocrtrain.inspection.token_spans import visible
from ocrtrain.model.pixels import seen
from tests.support.showing import Page, shown_of, talk

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "div", "b",
    "span", "section", "i", "em", "table", "thead", "tr", "th", "tbody", "td", "a", "article",
    "figure", "label", "input", "img", "figcaption", "mark", "kbd", "u", "br",
}  # fmt: skip


def html_of(shown: RebuiltBatch, limits: Limits | None = None) -> str:
    return "".join(page(shown, limits or Limits()))


def read(shown: RebuiltBatch, limits: Limits | None = None) -> Page:
    return Page(html_of(shown, limits))


def three_rows() -> RebuiltBatch:
    return shown_of([[talk("one", "two", 1), talk("three", "four")], [talk("5", "6", 2)], ["torn"]])


def images(found: Page) -> list[np.ndarray]:
    heads = [text.partition(",") for text in found.attributes("img", "src")]
    assert {head for head, _, _ in heads} <= {"data:image/png;base64"}
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for _, _, data in heads]


def test_all_of_a_batch_is_on_its_page() -> None:
    shown = three_rows()
    found = read(shown)
    text = "".join(found.text)
    assert found.within("title") == "run, step 0 of 5"
    assert f"identity {shown.identity} equals the one recorded" in text
    for sample in shown.samples:
        assert f"x-000.tar:{sample.segment.ref.key}" in found.within("td")
        assert f"x-000.tar:{sample.segment.ref.key}" in found.within("h3")
        assert sample.segment.ref.digest in text
    assert "skipped: torn" in text
    answers = "two<|assistant_end|>four<|assistant_end|>6<|assistant_end|>"
    assert found.within("mark") == "supervised" + answers
    assert text.count("<|bos|>") == 4 and found.within("kbd").count("image 3") == 3
    caption = "x-000.tar:k0.0 · 12 x 8 px, letterboxed to 64 x 43 in 64 x 64"
    assert found.within("figcaption").startswith(caption)


def test_the_images_are_those_the_encoder_sees() -> None:
    shown = three_rows()
    for image, found in zip(shown.batch.images, images(read(shown)), strict=True):
        assert np.array_equal(found, seen(image, 64).numpy())


hostile = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</mark></div>", "&lt;",
        "' onmouseover='x", "]]>", "<!--", "&#60;script&#62;", "\x00</title>", "\u202e<b>",
        "</style><script>", "{%", "a\nb  c ", " ", "\n", "·", "↵", "javascript:alert(1)",
    ]),
)  # fmt: skip


@given(question=hostile, answer=hostile, name=hostile, why=hostile, problem=hostile)
@settings(max_examples=60)
def test_no_text_becomes_a_part_of_the_page(
    question: str, answer: str, name: str, why: str, problem: str
) -> None:
    shown = shown_of(
        [[talk(question, answer, 1)], [why or "why"]], key=name, source=name or "s", run=f"r{name}"
    )
    shown = replace(shown, problem=TrainError(problem))
    found = read(shown)
    assert {tag for tag, _ in found.tags} <= TAGS
    assert not [name for _, values in found.tags for name in values if name.startswith("on")]
    assert all(re.fullmatch(r"#s\d+", link) for link in found.attributes("a", "href"))
    assert found.attributes("meta", "content")[0] == POLICY
    assert len(images(found)) == 1
    for text in (name, why, problem):
        assert visible(text) in "".join(found.text)


odd = st.text(st.sampled_from(" \nab·↵<&é中"), max_size=12)


@given(question=odd, answer=odd)
def test_a_text_is_read_off_the_page_as_it_was(question: str, answer: str) -> None:
    found = read(shown_of([[talk(question, answer)]]))
    supervised = found.within("mark").replace("supervised", "", 1)  # the legend's
    assert supervised.removesuffix("<|assistant_end|>").replace("·", " ") == visible(
        answer
    ).replace("·", " ")
    assert found.tags.count(("br", {})) == (question + answer).count("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" word", " word"), ("a b", "a b"), ("  word", "<u>··</u>word"), (" ", "<u>·</u>"),
        ("end ", "end<u>·</u>"), (" \n", "<u>·</u><u>↵</u><br>"), ("·↵", "·↵"), ("\t", "⇥"),
        ("<&'\">", "&lt;&amp;&#x27;&quot;&gt;"),
    ],
)  # fmt: skip
def test_odd_spaces_show_and_others_stay(text: str, shown: str) -> None:
    assert token_html(text) == shown


def test_every_token_says_its_id_and_position() -> None:
    shown = shown_of([[talk("ab", "c"), talk("d", "e", 1)]])
    found = read(shown)
    tips = [values["title"] for tag, values in found.tags
            if tag in ("span", "kbd") and "title" in values]  # fmt: skip
    ids = shown.batch.input_ids[0].tolist()
    first, second = shown.batch.rows[0].segments
    wanted = [f"id {ids[at]}, position {at}" for at in range(first.length)]
    at = 0
    while at < second.length:
        row = second.start + at
        last = f" to {at + 2}" if ids[row] == shown.tokenizer.image else ""
        wanted.append(f"id {ids[row]}, position {at}{last}, {row} in the row")
        at += 3 if last else 1
    assert tips == wanted


def test_limits_hold_and_are_said() -> None:
    shown = shown_of([[talk("question", "answer", 3), talk("q", "a", 2)] for _ in range(4)])
    found = read(shown, Limits(rows=3, samples=2, images=4, tokens=5))
    text = "".join(found.text)
    assert len(images(found)) == 4
    assert len(found.attributes("article", "id")) == 2
    assert len([1 for tag, values in found.tags if values.get("class") == "bar"]) == 3
    assert found.within("tbody").count("x-000.tar") == 6
    for note in (
        "not shown: 1 row (--rows N)", "not shown: 6 samples (--samples N)",
        "not shown: 16 images (--images N)", "not shown: 1 image (--images N)",
        " ids (--tokens N)",
    ):  # fmt: skip
        assert note in text, note
    assert not images(read(shown, Limits(images=0)))
    nothing = read(shown, Limits(0, 0, 0, 0))
    assert not nothing.attributes("article", "id")


def test_a_batch_of_hundreds_of_images_stays_small() -> None:
    shown = shown_of([[talk("q", "a", 3)] for _ in range(100)])
    assert len(html_of(shown)) < 600_000
    assert len(images(read(shown))) == Limits().images


@pytest.mark.parametrize(
    ("changes", "state"),
    [({}, "good"), ({"recorded": ""}, "open"), ({"problem": TrainError("it differs")}, "bad")],
)
def test_the_verdict_can_be_seen(changes: dict[str, object], state: str) -> None:
    shown = replace(three_rows(), **changes)  # type: ignore[arg-type]
    found = read(shown)
    assert ("p", {"class": f"verdict {state}"}) in found.tags
    assert ("it differs" in "".join(found.text)) == (state == "bad")


def test_bars_are_as_long_as_their_rows() -> None:
    shown = three_rows()
    width = shown.batch.input_ids.shape[1]
    bars = html_of(shown).split('<div class="bar">')[1:]
    for row, bar in zip(shown.batch.rows, bars, strict=True):
        widths = re.findall(r'<div class="(?:segment|padding)[^"]*" style="width:([0-9.]+)%', bar)
        shares = [float(share) for share in widths]
        wanted = [segment.length for segment in row.segments]
        wanted += [width - row.length] if row.length < width else []
        assert shares == pytest.approx([100 * part / width for part in wanted], rel=1e-3)


def test_the_same_batch_gives_the_same_page() -> None:
    assert html_of(three_rows()) == html_of(three_rows())
