"""The page: well-formed, self-contained, and no text of a data set can become markup."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined, nodes
from PIL import Image

from ocrdata.errors import TrainError
from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.pages import batch as batch_page
from ocrtrain.inspection.pages.batch import ENVIRONMENT, POLICY, page, text_parts
from ocrtrain.inspection.rebuild import RebuiltBatch
from ocrtrain.inspection.token_spans import visible
from ocrtrain.model.pixels import encoder_view
from tests.support.showing import Page, rebuilt_of, talk

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "div", "b",
    "span", "section", "i", "em", "table", "thead", "tr", "th", "tbody", "td", "a", "article",
    "figure", "label", "input", "img", "figcaption", "mark", "kbd", "u", "br",
}  # fmt: skip

TEMPLATES = {
    file.name: file.read_text()
    for file in files("ocrtrain.inspection.pages").joinpath("templates").iterdir()
}
STYLE = TEMPLATES["batch.css"]


def html_of(rebuilt: RebuiltBatch, limits: Limits | None = None) -> str:
    return "".join(page(rebuilt, limits or Limits()))


def read(rebuilt: RebuiltBatch, limits: Limits | None = None) -> Page:
    return Page(html_of(rebuilt, limits))


def three_rows() -> RebuiltBatch:
    return rebuilt_of(
        [[talk("one", "two", 1), talk("three", "four")], [talk("5", "6", 2)], ["torn"]]
    )


def images(found: Page) -> list[np.ndarray]:
    heads = [text.partition(",") for text in found.attributes("img", "src")]
    assert {head for head, _, _ in heads} <= {"data:image/png;base64"}
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for _, _, data in heads]


def test_the_page_shows_the_whole_batch() -> None:
    rebuilt = three_rows()
    found = read(rebuilt)
    text = "".join(found.text)
    assert found.within("title") == "run, step 0 of 5"
    assert rebuilt.verdict in text
    for sample in rebuilt.samples:
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
    rebuilt = three_rows()
    for image, found in zip(rebuilt.batch.images, images(read(rebuilt)), strict=True):
        assert np.array_equal(found, encoder_view(image, 64).numpy())


hostile = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</mark></div>", "&lt;",
        "' onmouseover='x", "]]>", "<!--", "&#60;script&#62;", "\x00</title>", "\u202e<b>",
        "</style><script>", "{%", "{{ 7 * 7 }}", "{# #}", "a\nb  c ", " ", "\n", "·", "↵",
        "javascript:alert(1)",
    ]),
)  # fmt: skip


@given(question=hostile, answer=hostile, name=hostile, why=hostile, problem=hostile)
@settings(max_examples=60)
def test_no_text_becomes_markup(
    question: str, answer: str, name: str, why: str, problem: str
) -> None:
    rebuilt = rebuilt_of(
        [[talk(question, answer, 1)], [why or "why"]], key=name, source=name or "s", run=f"r{name}"
    )
    rebuilt = replace(rebuilt, problem=TrainError(problem))
    found = read(rebuilt)
    assert {tag for tag, _ in found.tags} <= TAGS
    assert not [name for _, values in found.tags for name in values if name.startswith("on")]
    assert all(re.fullmatch(r"#s\d+", link) for link in found.attributes("a", "href"))
    assert found.attributes("meta", "content")[0] == POLICY
    assert len(images(found)) == 1
    for text in (name, why, problem):
        assert visible(text) in "".join(found.text)
    tooltips = found.attributes("div", "title")
    assert any(visible(f"x-000.tar:{name}0.0") in tooltip for tooltip in tooltips)
    assert visible(f"r{name}") in found.within("title")


def test_escaping_is_on_for_every_template_and_never_bypassed() -> None:
    """What marks text as safe markup: a filter, a block, an expression, or Markup in Python."""
    assert ENVIRONMENT.autoescape is True
    assert ENVIRONMENT.undefined is StrictUndefined
    assert set(TEMPLATES) == {"batch.html.jinja", "batch.css", "worst.html.jinja", "worst.css"}
    for name, source in TEMPLATES.items():
        tree = ENVIRONMENT.parse(source)
        used = {node.name for node in tree.find_all(nodes.Filter)}
        assert not used & {"safe", "escape", "e", "forceescape", "tojson", "xmlattr"}, name
        scopes = (nodes.ScopedEvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)
        assert not list(tree.find_all(scopes)), name
    source = files("ocrtrain.inspection.pages").joinpath("batch.py").read_text()
    assert "Markup" not in source and "__html__" not in source
    assert ENVIRONMENT.from_string("{{ text }}").render(text="<b a='\"'>") == (
        "&lt;b a=&#39;&#34;&#39;&gt;"
    )


odd = st.text(st.sampled_from(" \nab·↵<&é中"), max_size=12)


@given(question=odd, answer=odd)
def test_the_page_text_equals_the_sample_text(question: str, answer: str) -> None:
    found = read(rebuilt_of([[talk(question, answer)]]))
    supervised = found.within("mark").replace("supervised", "", 1)  # the legend's
    assert supervised.removesuffix("<|assistant_end|>").replace("·", " ") == visible(
        answer
    ).replace("·", " ")
    assert found.tags.count(("br", {})) == (question + answer).count("\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (" word", [(" word", False)]), ("a b", [("a b", False)]), ("", []),
        ("  word", [("  ", True), ("word", False)]), (" ", [(" ", True)]),
        ("end ", [("end", False), (" ", True)]), (" \n", [(" ", True), ("\n", True)]),
        ("a\nb", [("a", False), ("\n", True), ("b", False)]),
        ("·↵", [("·↵", False)]), ("\t", [("\t", False)]),
    ],
)  # fmt: skip
def test_line_ends_and_odd_spaces_are_split_off(text: str, parts: list[tuple[str, bool]]) -> None:
    assert text_parts(text) == parts


def test_line_ends_and_odd_spaces_are_marked() -> None:
    """The test tokenizer has a token for each of these characters."""
    html = html_of(rebuilt_of([[talk("q", " \n\t<&'\">")]]))
    answer = re.sub(r"</?span[^>]*>", "", html.rpartition("<mark>")[2].partition("<kbd")[0])
    assert answer == "<u>·</u><u>↵</u><br>⇥&lt;&amp;&#39;&#34;&gt;"


def test_every_token_has_its_id_and_position_as_tooltip() -> None:
    rebuilt = rebuilt_of([[talk("ab", "c"), talk("d", "e", 1)]])
    found = read(rebuilt)
    tips = [values["title"] for tag, values in found.tags
            if tag in ("span", "kbd") and "title" in values]  # fmt: skip
    ids = rebuilt.batch.input_ids[0].tolist()
    first, second = rebuilt.batch.rows[0].segments
    wanted = [f"id {ids[at]}, position {at}" for at in range(first.length)]
    at = 0
    while at < second.length:
        row = second.start + at
        last = f" to {at + 2}" if ids[row] == rebuilt.tokenizer.image else ""
        wanted.append(f"id {ids[row]}, position {at}{last}, {row} in the row")
        at += 3 if last else 1
    assert tips == wanted


def test_limits_are_kept_and_stated() -> None:
    rebuilt = rebuilt_of([[talk("question", "answer", 3), talk("q", "a", 2)] for _ in range(4)])
    found = read(rebuilt, Limits(rows=3, samples=2, images=4, tokens=5))
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
    assert not images(read(rebuilt, Limits(images=0)))
    nothing = read(rebuilt, Limits(0, 0, 0, 0))
    assert not nothing.attributes("article", "id")


def test_a_batch_of_hundreds_of_images_stays_small() -> None:
    rebuilt = rebuilt_of([[talk("q", "a", 3)] for _ in range(100)])
    assert len(html_of(rebuilt)) < 600_000
    assert len(images(read(rebuilt))) == Limits().images


def test_an_image_is_encoded_when_its_piece_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory never holds all images of a page."""
    encode, encoded = batch_page._base64_png, []
    monkeypatch.setattr(
        batch_page, "_base64_png", lambda pixels: encoded.append(1) or encode(pixels)
    )
    yielded = 0
    for piece in page(three_rows(), Limits()):
        assert len(encoded) - yielded <= 1
        yielded += piece.count("iVBOR")  # how a PNG begins in base64
    assert yielded == len(encoded) == 3


@pytest.mark.parametrize(
    ("changes", "state"),
    [({}, "good"), ({"recorded": ""}, "open"), ({"problem": TrainError("it differs")}, "bad")],
)
def test_the_verdict_is_styled_by_its_state(changes: dict[str, object], state: str) -> None:
    rebuilt = replace(three_rows(), **changes)  # type: ignore[arg-type]
    found = read(rebuilt)
    assert ("p", {"class": f"verdict {state}"}) in found.tags
    assert ("it differs" in "".join(found.text)) == (state == "bad")


def test_bars_are_as_long_as_their_rows() -> None:
    rebuilt = three_rows()
    width = rebuilt.batch.input_ids.shape[1]
    bars = html_of(rebuilt).split('<div class="bar">')[1:]
    for row, bar in zip(rebuilt.batch.rows, bars, strict=True):
        widths = re.findall(r'<div class="(?:segment|padding)[^"]*"\s+style="width:([0-9.]+)%', bar)
        shares = [float(share) for share in widths]
        wanted = [segment.length for segment in row.segments]
        wanted += [width - row.length] if row.length < width else []
        assert shares == pytest.approx([100 * part / width for part in wanted], rel=1e-3)


def test_rows_and_their_parts_stay_in_order() -> None:
    rebuilt = three_rows()
    swapped = replace(
        rebuilt,
        batch=replace(
            rebuilt.batch,
            rows=rebuilt.batch.rows[1::-1],
            input_ids=rebuilt.batch.input_ids[[1, 0]],
            targets=rebuilt.batch.targets[[1, 0]],
        ),
    )
    for one in (rebuilt, swapped):
        found = read(one, Limits(samples=0))
        tooltips = [title for title in found.attributes("div", "title") if ":k" in title]
        keys = [segment.ref.key for row in one.batch.rows for segment in row.segments]
        assert [re.split("[: ]", title)[1] for title in tooltips] == keys


def test_the_same_batch_gives_the_same_bytes() -> None:
    assert html_of(three_rows()) == html_of(three_rows())


def test_the_stylesheet_requests_nothing_and_is_well_formed() -> None:
    """It is included as a template, so it must not contain template syntax either."""
    assert not re.search(r"url\(|@import|@font-face|<|http|\{[{%#]", STYLE)
    assert STYLE.count("{") == STYLE.count("}")
    assert STYLE.strip() in html_of(three_rows())


def test_every_class_of_the_page_has_a_style() -> None:
    rebuilt = rebuilt_of([[talk("q", "a", 1), talk("q", "a", 5)], ["skipped"], [talk("q", "a")]])
    found = read(replace(rebuilt, problem=TrainError("x")), Limits(images=2))
    used = {name for _, values in found.tags for name in (values.get("class") or "").split()}
    known = set(re.findall(r"\.([a-z]+)", STYLE))
    assert used - known <= {"word", "above"}, "these two need none"
    assert {"segment", "beside", "problem", "bad", "masked"} <= used
