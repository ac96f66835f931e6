"""The flags of named sources: names, specs and weights, and every mistake."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageMode
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import parse
from ocrtrain.settings.named_sources import NamedSource, parse_sources, parse_specs, with_spec
from ocrtrain.settings.saved_config import compare, differences, from_json, to_json

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
weights = st.builds(Fraction, st.integers(1, 999), st.integers(1, 999))
specs = st.text("abc/:=[]{},.*<>-0123", min_size=1, max_size=20)


@given(st.lists(st.tuples(names, specs, weights), max_size=4, unique_by=lambda one: one[0]))
def test_a_source_is_what_was_written(given_: list[tuple[str, str, Fraction]]) -> None:
    words = [f"{name}={spec}:{weight}" for name, spec, weight in given_]
    found = parse_sources(words)
    assert found == tuple(NamedSource(*one) for one in given_)
    for word, source in zip(words, found, strict=True):
        (moved,) = parse_sources([with_spec(word, "new.tar[1:2]")])
        assert moved == source._replace(spec="new.tar[1:2]")


@pytest.mark.parametrize(
    ("text", "spec", "weight"),
    [
        ("a=x.json:3", "x.json", 3),
        ("a=x-<000..017>.tar[:18000]:0.25", "x-<000..017>.tar[:18000]", Fraction(1, 4)),
        ("a=https://h/x=1/{a,b}-000.tar[::2]:10/28", "https://h/x=1/{a,b}-000.tar[::2]",
         Fraction(5, 14)),
    ],
)  # fmt: skip
def test_specs_may_hold_colons_commas_and_equals_signs(
    text: str, spec: str, weight: Fraction
) -> None:
    assert parse_sources([text]) == (NamedSource("a", spec, Fraction(weight)),)


def test_changed_weights_start_at_their_steps() -> None:
    found = parse_sources(["a=x:1", "b=y:2", "c=z:3"], ["10:a=0,b=1/2", "20:a=5"])
    assert [source.weight for source in found] == [
        ((0, 1), (10, 0), (20, 5)), ((0, 2), (10, Fraction(1, 2))), Fraction(3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": ("a.tar:1",)}, "--source a.tar:1: .*NAME="),
        ({"source": ("a b=a.tar:1",)}, "--source a b=a.tar:1: .*NAME="),
        ({"source": ("a/b=a.tar:1",)}, "--source a/b=a.tar:1: .*NAME="),
        ({"source": ("a=a.tar",)}, "--source a=a.tar: the weight is missing"),
        ({"source": ("a=a.tar[1:2]",)}, r"--source a=a.tar\[1:2\]: the weight is missing"),
        ({"source": ("a=:2",)}, "--source a=:2: .*missing"),
        ({"source": ("a=https://h/a.tar",)}, "'//h/a.tar' is not a weight"),
        ({"source": ("a=a.tar:0", "b=b.tar:1")}, "--source a: its weight is 0 throughout"),
        ({"source": ("a=a.tar:0",), "source_at": ("9:a=1",)}, "all weights are 0 at step 0"),
        ({"source": ("a=a.tar:-1",)}, "'-1' is not a weight"),
        ({"source": ("a=a.tar:1/0",)}, "'1/0' is not a weight"),
        ({"source": ("a=a.tar:1e99999999",)}, "'1e99999999' is not a weight"),
        ({"source": ("a=a.tar:nan",)}, "'nan' is not a weight"),
        ({"source": ("a=a.tar:1", "a=b.tar:1")}, "--source a is given twice.* a.tar .* b.tar"),
        ({"source": ("a=a.tar:1",), "source_at": ("x",)}, "--source-at x: .*STEP:NAME=WEIGHT"),
        ({"source": ("a=a.tar:1",), "source_at": ("0:a=1",)}, "--source-at 0:a=1: .*from 1 on"),
        ({"source": ("a=a.tar:1",), "source_at": ("9:a=1", "9:a=2")}, "--source-at 9:a=2: "),
        ({"source": ("a=a.tar:1",), "source_at": ("9:b=1",)}, "'b' is not .*--source .a."),
        ({"source": ("a=a.tar:1",), "source_at": ("9:a=1,a=2",)}, "9:a=1,a=2: a is given twice"),
        ({"source": ("a=a.tar:1",), "source_at": ("9:a",)}, "'' is not a weight"),
        ({"source": ("a=a.tar:1",), "source_at": ("9:a=0",)}, "from step 9 on all weights are 0"),
        ({"source": ("a=a.tar:1",), "val_source": ("b=b.tar",)}, "--val-source b=b.tar: b .*.a."),
        ({"source": ("a=a.tar:1",), "val_source": ("a=b", "a=c")}, "--val-source a is given twice"),
        ({"source": ("a=a.tar:1",), "val_source": ("b.tar",)}, "--val-source b.tar: .*NAME="),
        ({"source_at": ("9:a=1",)}, "--source-at needs --source"),
        ({"val_source": ("a=b",)}, "--val-source needs --source"),
        ({"image_size_of": ("a=64",)}, "--image-size-of needs --source"),
        *(
            ({"source": ("a=a.tar:1",), "image_size_of": given}, message)
            for given, message in (
                (("64",), "--image-size-of 64: .*NAME=.*charts=256"),
                (("b=64",), "--image-size-of b=64: b is not .*--source .a."),
                (("a=64", "a=128"), "--image-size-of a is given twice; name one size"),
                (("a=100",), "--image-size-of a=100: image size 100 px .*multiple of 64"),
                (("a=0",), "--image-size-of a=0: .*out of range"),
                (("a=big",), "--image-size-of a=big: 'big' is not an image size"),
            )
        ),
        ({"source": ("a=a.tar:1",), "shards": ("b.tar",)}, "--shards cannot .*--source"),
        ({"source": ("a=a.tar:1",), "text_ratio": Fraction(1, 2)}, "--text-ratio cannot"),
        ({"source": ("a=a.tar:1",), "val_slice": "[5:]"}, "--val-slice cannot .*--val-source"),
    ],
)
def test_errors_name_the_flag_and_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        dataclasses.replace(Config(), **values)
    assert "\n" not in str(caught.value)


def test_a_source_may_start_later() -> None:
    """A curriculum: cells first, charts from step 150 on."""
    cells, charts = parse_sources(["cells=a:1", "charts=b:0"], ["150:cells=1,charts=3"])
    assert cells.weight == ((0, Fraction(1)), (150, Fraction(1)))
    assert charts.weight == ((0, Fraction(0)), (150, Fraction(3)))


def test_each_source_has_its_image_size() -> None:
    config = Config(source=("a=x:1", "b=y:1"), image_size_of=("a=64",), image_size=256)
    assert [config.image_mode(name) for name in ("a", "a/image", "b", "b/text")] == [
        ImageMode(64), ImageMode(64), ImageMode(256), ImageMode(256)
    ]  # fmt: skip
    assert config.image_modes == (ImageMode(256), ImageMode(64))
    both = dataclasses.replace(config, image_size_of=("a=64", "b=128"))
    assert both.image_modes == (ImageMode(64), ImageMode(128))
    short = Config(shards=("x",), image_size=256)
    assert (short.image_mode("charts"), short.image_modes) == (ImageMode(256), (ImageMode(256),))
    assert from_json(to_json(both)) == both


def test_the_flag_adds_up() -> None:
    words = ["--source", "a=x:1", "b=y:2", "--lr", "1", "--source", "c=z:3", "--val-source", "a=v"]
    config = parse(words, presets.stage1, prog="stage1", description="").config
    assert config.source == ("a=x:1", "b=y:2", "c=z:3")
    assert from_json(to_json(config)) == config
    assert parse_specs("--val-source", config.val_source, config.named_sources) == {"a": "v"}


def test_an_older_config_keeps_its_meaning() -> None:
    """It joined the sets of a flag, and only warned of leaks."""
    new = {"source", "source_at", "val_source", "join_sets", "allow_leak"}
    value = {k: v for k, v in to_json(Config()).items() if k not in new}
    config = from_json(value)
    assert (config.join_sets, config.allow_leak, config.source) == (True, True, ())
    assert {one.name for one in compare(Config(), config)} == {"join_sets", "allow_leak"}


def test_weights_and_paths_may_change_on_resume() -> None:
    """Both are found by comparing plans (`continued_plan.py`)."""
    old = Config(source=("a=x.tar:1",))
    assert differences(old, Config(source=("a=moved.tar:2",))) == []
