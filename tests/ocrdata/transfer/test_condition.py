"""`--where`: every condition against an oracle in Python over the same rows; SQL's null; types that
differ from sample to sample; and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.images.decode import ImageInfo
from ocrdata.shards.index import IndexRow
from ocrdata.transfer.condition import COLUMNS, Condition, TypeWidened

Value = bool | None
Oracle = Callable[[IndexRow, Mapping[str, Any]], Value]


def first(row: IndexRow, name: str) -> Any:
    """A property of the first image; None without one, or where it is unknown."""
    return getattr(row.images[0], name) or None if row.images else None


def compare(left: Any, test: Callable[[Any], bool]) -> Value:
    """A comparison as in SQL: null with null."""
    return None if left is None else test(left)


def both(*values: Value) -> Value:
    return False if False in values else None if None in values else True


def either(*values: Value) -> Value:
    return True if True in values else None if None in values else False


ORACLES: dict[str, Oracle] = {
    "width <= 9": lambda row, _: compare(first(row, "width"), lambda width: width <= 9),
    "not width <= 9": lambda row, _: compare(first(row, "width"), lambda width: width > 9),
    "height > 5 or turns = 2": lambda row, _: either(
        compare(first(row, "height"), lambda height: height > 5), row.turns == 2
    ),
    "height > 5 and turns = 2": lambda row, _: both(
        compare(first(row, "height"), lambda height: height > 5), row.turns == 2
    ),
    "IMAGES >= 2": lambda row, _: len(row.images) >= 2,
    "images = 0 and size < 2000": lambda row, _: not row.images and row.size < 2000,
    "width is null": lambda row, _: first(row, "width") is None,
    "list_max(widths) < 9": lambda row, _: compare(
        max((one.width for one in row.images if one.width), default=None), lambda most: most < 9
    ),
    "len(list_filter(heights, lambda height: height > 5)) >= 1": lambda row, _: any(
        one.height > 5 for one in row.images
    ),
    "list_contains(formats, 'png')": lambda row, _: any(o.format == "png" for o in row.images),
    "format in ('jpg', 'gif')": lambda row, _: compare(
        first(row, "format"), lambda kind: kind in ("jpg", "gif")
    ),
    "source = 'b' or key like '%7'": lambda row, _: row.source == "b" or row.key.endswith("7"),
    "turns between 2 and 3": lambda row, _: 2 <= row.turns <= 3,
    "meta.rating >= 3": lambda _, meta: compare(meta.get("rating"), lambda rating: rating >= 3),
    "meta.rating is null": lambda _, meta: meta.get("rating") is None,
    "coalesce(meta.rating, 0) < 3 -- a comment": lambda _, meta: (meta.get("rating") or 0) < 3,
    "meta.checked": lambda _, meta: meta.get("checked"),
    "not meta.checked": lambda _, meta: compare(meta.get("checked"), lambda checked: not checked),
    "meta.page.size > 1.5": lambda _, meta: compare(
        (meta.get("page") or {}).get("size"), lambda size: size > 1.5
    ),
    "lower(meta.\"the language\") = 'fr'": lambda _, meta: compare(
        meta.get("the language"), lambda language: language.lower() == "fr"
    ),
    "json_array_length(meta.tags) > 1": lambda _, meta: compare(
        meta.get("tags"), lambda tags: len(tags) > 1
    ),
    "meta.rating + turns > width": lambda row, meta: compare(
        None if meta.get("rating") is None else first(row, "width"),
        lambda width: meta["rating"] + row.turns > width,
    ),
    "true": lambda _row, _meta: True,
}

images = st.lists(
    st.builds(
        ImageInfo, st.sampled_from(["png", "jpg", ""]), st.integers(0, 12), st.integers(0, 12)
    ),
    max_size=3,
)
metas = st.fixed_dictionaries(
    {},
    optional={
        "rating": st.none() | st.integers(0, 5),
        "checked": st.none() | st.booleans(),
        "page": st.none()
        | st.fixed_dictionaries({}, optional={"size": st.none() | st.floats(0, 3)}),
        "the language": st.none() | st.sampled_from(["fr", "FR", "", "de"]),
        "tags": st.none() | st.lists(st.sampled_from(["x", "y"]), max_size=3),
    },
)


@st.composite
def index_rows(draw: st.DrawFn) -> list[IndexRow]:
    """The index rows of up to 20 samples."""
    return [
        IndexRow(
            f"{number:09d}", 1024 * number, draw(st.integers(512, 4096)), [],
            draw(images), draw(st.integers(1, 3)), draw(st.sampled_from(["a", "b"])),
        )
        for number in range(draw(st.integers(0, 20)))
    ]  # fmt: skip


def judged(condition: Condition, rows: Any, metas: Any) -> list[Value]:
    """The value of a condition for each row, beginning again where it asks for that."""
    try:
        true, null = condition.evaluate(rows, metas)
    except TypeWidened:
        true, null = condition.evaluate(rows, metas)
    assert not (true & null).any()
    return [True if yes else None if unknown else False
            for yes, unknown in zip(true, null, strict=True)]  # fmt: skip


@given(data=st.data())
@settings(max_examples=6)
def test_each_condition_is_what_python_says(data: st.DataObject) -> None:
    rows = data.draw(index_rows())
    found = [data.draw(metas) for _ in rows]
    for text, oracle in ORACLES.items():
        wanted = [oracle(row, meta) for row, meta in zip(rows, found, strict=True)]
        assert judged(Condition(text), rows, found) == wanted, text


def test_every_column_is_in_some_condition_above() -> None:
    named = set[str]()
    for text in ORACLES:
        named.update(Condition(text)._columns)
    assert named == set(COLUMNS)


THREE = [IndexRow(f"{number:09d}", 1024 * number, 1024, [], [], 1, "s") for number in range(3)]
"""The rows of three samples without images."""


def of(text: str, *values: Any) -> list[Value]:
    """The value of a condition on meta.x, for samples with these values of it."""
    return judged(Condition(text), THREE[: len(values)], [{"x": value} for value in values])


@pytest.mark.parametrize(
    ("values", "text", "wanted"),
    [
        ((1, 2.5, None), "meta.x > 2", [False, True, None]),
        ((1, float("nan"), float("inf")), "meta.x > 0", [True, None, None]),
        ((2**53, 2**53 + 1, 0), f"meta.x = {2**53}", [True, False, False]),
        (("a", 3, True), "meta.x = '3'", [False, True, False]),
        ((2**70, 1, None), "TRY_CAST(meta.x AS DOUBLE) > 5", [True, False, None]),
        (("4", 3, "x"), "try_cast(meta.x as double) >= 3", [True, True, None]),
        (([1], {"a": 2}, None), "meta.x->>'a' = '2'", [None, True, None]),
        (("\0", "'", '"'), "meta.x = ''''", [False, True, False]),
        (("\ud83d", "x", None), "meta.x = 'x'", [False, True, None]),
        (
            ([float("nan"), "\ud83d"], [], None),
            "json_array_length(meta.x) = 2",
            [True, False, None],
        ),
    ],
)
def test_a_field_has_one_type_in_all_samples(
    values: tuple[Any, ...], text: str, wanted: list[Value]
) -> None:
    assert of(text, *values) == wanted


def test_a_wider_type_in_a_later_shard_asks_to_begin_again() -> None:
    """Text compares '10' before '9', numbers do not: no sample may keep the first judgement."""
    condition, one = Condition("meta.x > '9'"), THREE[:1]
    assert condition.evaluate(one, [{"x": None}])[1].all()
    assert condition.evaluate(one, [{"x": 10}])[0].all()
    with pytest.raises(TypeWidened, match=r"meta\.x"):
        condition.evaluate(one, [{"x": "ten"}])
    assert not condition.evaluate(one, [{"x": 10}])[0].any()


def test_a_field_that_no_sample_has_is_named_with_those_that_there_are() -> None:
    condition = Condition("meta.page.relevnce > 3 or meta.y = 1")
    page = {"relevance": 4, "other": 1}
    condition.evaluate(THREE[:2], [{"page": page, "y": 0}, {"page": None}])
    with pytest.raises(UsageError, match=r"meta\.page\.relevnce .*meta\.page\.relevance\?"):
        condition.check_found()
    condition.evaluate(THREE[:1], [{"page": {"relevnce": 1}}])
    condition.check_found()


def test_text_against_a_number_says_which_samples_have_what() -> None:
    with pytest.raises(UsageError, match=r"VARCHAR .*meta\.x is a whole number and text"):
        of("meta.x > 3", "a", 3)
    with pytest.raises(UsageError, match="Could not convert"):
        of("cast(meta.x as int) > 3", "a", "3")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("wdith > 3", "did you mean width"),
        ("relevance >= 3", "meta.NAME"),
        ("samples.width > 3", "no column samples.width"),
        ("meta > 3", "meta.page"),
        ("meta['x'] > 3", "meta.page"),
        ("meta.x > 3 and meta.X > 3", "meta.x and meta.X"),
        ("width", "INTEGER"),
        ("'true'", "VARCHAR"),
        ("source > 3", "VARCHAR"),
        ("width >", "syntax error"),
        ("", "syntax error"),
        ("true; drop table samples", "SELECT"),
        ("true; select 1", "one expression"),
        ("true order by 1", "one expression"),
        ("true limit 1", "one expression"),
        ("true union select 1", "one expression"),
        ("true) or (true", "syntax error"),
        ("width in (select 3)", "subquery"),
        ("exists (from read_text('pyproject.toml'))", "subquery"),
        ("row_number() over () > 1", "window"),
        ("count(*) > 1", "count_star()"),
        ("max(width) > 1", "max()"),
        ("geomean(width) > 1", "aggregate"),
        ("random() < 0.5", "random()"),
        ("now() > '2020-01-01'", "now()"),
        ("ago(interval 1 day) > '2020-01-01'", "ago"),
        ("current_date > '2020-01-01'", "no column current_date"),
        ("list_filter(widths, lambda w: random() > 0.5) is null", "random()"),
        ("#1 > 1", "positional reference"),
        ("width > ?", "one expression"),
        ("* > 1", "star"),
        ("nosuch(width)", "nosuch does not exist"),
    ],
)
def test_what_is_no_condition_on_one_sample_is_refused(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        Condition(text)
    assert named in str(caught.value) and f"'{text}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_are_out_of_reach(tmp_path: Any) -> None:
    (tmp_path / "secret.txt").write_text("x")
    for text in (f"read_text('{tmp_path}/secret.txt') is null", f"getenv('HOME') = '{tmp_path}'"):
        with pytest.raises(UsageError):
            of(text, 1)


def test_without_duckdb_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ocrdata.transfer import condition

    condition._connection.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"ocr-shards\[reshard\]"):
        Condition("true")
