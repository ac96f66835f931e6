"""What a config opens: slices against a list's, shares, names, and mistakes in one line."""

from __future__ import annotations

import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SpecError, UsageError
from ocrdata.reading.view import open_shards
from ocrtrain.data.sources import open_sources, open_training
from ocrtrain.settings.config import TEXT_RATIO
from ocrtrain.settings.flags import parse
from ocrtrain.settings.presets import stage1
from tests.support.data import small_config
from tests.support.streams import STEPS, make_plan, make_stream, positions, two_sources

bounds = st.one_of(st.none(), st.integers(-70, 70))
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2, 7, -1, -3]))


def written(found: slice) -> str:
    parts = [found.start, found.stop] + ([found.step] if found.step is not None else [])
    return "[" + ":".join("" if part is None else str(part) for part in parts) + "]"


@given(default=slices, own=st.one_of(st.none(), slices), flag=st.sampled_from(["shards", "val"]))
@settings(max_examples=60, deadline=None)
def test_a_specs_own_slice_wins_and_the_default_counts_without_one(
    inputs: dict[str, str], default: slice, own: slice | None, flag: str
) -> None:
    spec = inputs["shards"] + (written(own) if own is not None else "")
    values: dict[str, object] = {
        "shards": {"shards": (spec,), "train_slice": written(default)},
        "val": {"val": (spec,), "val_slice": written(default)},
    }[flag]  # type: ignore[assignment]
    config = replace(small_config(inputs, Path("unused")), **values)  # type: ignore[arg-type]
    # What is named for validation is meant whole; only what is trained on has a default slice.
    without = default if flag == "shards" else slice(None)
    wanted = list(range(60))[own if own is not None else without]
    if not wanted:
        with pytest.raises(UsageError, match=rf"^--{flag} .* holds no samples"):
            open_sources(config)
        return
    sources = open_sources(config)
    found = sources.train if flag == "shards" else sources.validation
    assert {name: positions(shards) for name, shards in found.items()} == {"squares": wanted}


def test_all_of_it_is_a_slice_too(inputs: dict[str, str]) -> None:
    config = two_sources(
        inputs, shards=(inputs["shards"] + "[:]",), text=(inputs["text"] + "[:]",),
        train_slice="[:5]", text_train_slice="[:5]",
    )  # fmt: skip
    sources = open_sources(config)
    assert {name: len(shards) for name, shards in sources.train.items()} == {
        "squares": 60,
        "sums": 40,
    }


def test_each_flag_has_its_own_default(inputs: dict[str, str]) -> None:
    config = two_sources(
        inputs, shards=(inputs["shards"],), text=(inputs["text"],), val=(), val_text=(),
        train_slice="[:11]", val_slice="[11:15]", text_train_slice="[:7]",
        text_val_slice="[7:10]",
    )  # fmt: skip
    sources = open_sources(config)
    assert {name: positions(shards) for name, shards in sources.train.items()} == {
        "squares": list(range(11)), "sums": list(range(7)),
    }  # fmt: skip
    assert {name: positions(shards) for name, shards in sources.validation.items()} == {
        "squares": list(range(11, 15)), "sums": list(range(7, 10)),
    }  # fmt: skip


def test_what_is_trained_on_is_not_validated_on_unasked(inputs: dict[str, str]) -> None:
    """Without --val the slice of --val-slice counts, whichever slice --shards carries."""
    config = two_sources(
        inputs, shards=(inputs["shards"] + "[:48]",), text=(inputs["text"] + "[:30]",), val=(),
        val_text=(), val_slice="[48:]", text_val_slice="[30:]",
    )  # fmt: skip
    sources = open_sources(config)
    assert {name: positions(shards) for name, shards in sources.validation.items()} == {
        "squares": list(range(48, 60)), "sums": list(range(30, 40)),
    }  # fmt: skip


def test_several_tars_are_one_set_with_the_slice_of_the_last(inputs: dict[str, str]) -> None:
    tars = [inputs["shards"].replace("*", f"{number:03d}") for number in range(3)]
    for words in ((*tars[:2], tars[2] + "[15:45]"), tuple(tar + "[15:45]" for tar in tars)):
        config = replace(small_config(inputs, Path("unused")), shards=words, val=())
        config = replace(config, val_slice="[50:]")
        sources = open_sources(config)
        assert positions(sources.train["squares"]) == list(range(15, 45))
        assert positions(sources.validation["squares"]) == list(range(50, 60))


def test_a_set_that_no_slice_reaches_is_told(inputs: dict[str, str]) -> None:
    """Several sets are one source: the default slice, of them together, may end before the last."""
    both = (inputs["text"], inputs["shards"])
    config = two_sources(inputs, text=both, text_train_slice="[:41]")
    assert len(open_sources(config).train["sums"]) == 41
    with pytest.raises(UsageError, match=r"--text names 2 sets, .* takes no sample of .*squares"):
        open_sources(replace(config, text_train_slice="[:40]"))
    with pytest.raises(
        UsageError, match=r"takes no sample of .*sums; .* --text-train-slice '\[:\]'"
    ):
        open_sources(replace(config, text_train_slice="[40:]"))
    config = replace(config, shards=both, text=(), text_ratio=TEXT_RATIO, train_slice="[:9]")
    with pytest.raises(UsageError, match=r"--shards names 2 sets, and --train-slice"):
        open_sources(config)


def test_an_empty_slice_says_which_flag(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(inputs, tmp_path / "run", val=(inputs["shards"] + "[100:]",))
    with pytest.raises(UsageError, match=r"--val .* holds no samples"):
        open_sources(config)
    config = small_config(inputs, tmp_path / "run", val=(), shards=(inputs["shards"],))
    with pytest.raises(UsageError, match=r"--val .*\[18000:18100\] holds no samples"):
        open_sources(config)
    nothing = (inputs["text"] + "[40:]",)
    with pytest.raises(UsageError, match=r"^--text .* holds no samples"):
        open_sources(two_sources(inputs, text=nothing))
    with pytest.raises(UsageError, match=r"^--val-text .* holds no samples"):
        open_sources(two_sources(inputs, val_text=nothing))


def test_what_is_suggested_for_several_sets_can_be_typed_too(inputs: dict[str, str]) -> None:
    config = two_sources(inputs, val_text=(inputs["shards"], inputs["text"]))
    assert len(open_sources(config).validation["squares-2"]) == 100
    config = replace(config, val_text=(), text_val_slice="[500:]", text=config.val_text)
    with pytest.raises(UsageError, match=r"holds no samples") as caught:
        open_sources(replace(config, text_train_slice="[:]"))
    (typed,) = shlex.split(str(caught.value).split("such as --val-text ")[1])
    assert len(open_shards(typed)) == 40


@pytest.mark.parametrize("count", [1, 3])
def test_what_an_empty_slice_suggests_can_be_typed(inputs: dict[str, str], count: int) -> None:
    tars = [inputs["shards"].replace("*", f"{number:03d}") for number in range(count)]
    config = small_config(inputs, Path("unused"), val=(*tars[:-1], tars[-1] + "[5:5]"))
    with pytest.raises(UsageError) as caught:
        open_sources(config)
    words = shlex.split(str(caught.value).split("such as ")[1])
    typed = parse(words, stage1, prog="stage1", description="").config.val
    again = open_sources(replace(config, val=typed))
    assert positions(again.validation["squares"]) == list(range(20 * count))[-100:]


@pytest.mark.parametrize("text", [True, False])
def test_what_is_trained_on_opens_without_what_validates(
    inputs: dict[str, str], text: bool
) -> None:
    none: dict[str, object] = {} if text else {"text": (), "val_text": ()}
    wanted = open_sources(two_sources(inputs, **none))
    found = open_training(two_sources(inputs, **none, val=("gone.tar",)))
    assert (found.shares, found.validation) == (wanted.shares, {})
    assert list(found.train) == list(wanted.train)
    assert [view.digest for view in found.train.values()] == [
        view.digest for view in wanted.train.values()
    ]


def test_shards_that_are_not_there(inputs: dict[str, str], tmp_path: Path) -> None:
    absent = (str(tmp_path / "absent-*.tar"),)
    for name in ("shards", "val", "text", "val_text"):
        with pytest.raises(SpecError, match="the pattern matches nothing"):
            open_sources(two_sources(inputs, **{name: absent}))


def test_shares(inputs: dict[str, str]) -> None:
    ratio = Fraction(2, 7)
    mixed = open_sources(two_sources(inputs, text_ratio=ratio))
    assert mixed.shares == {"squares": ((0, 1 - ratio),), "sums": ((0, ratio),)}
    alone = open_sources(small_config(inputs, Path("unused"), text_ratio=ratio))
    assert alone.shares == {"squares": Fraction(1)}
    assert list(alone.train) == list(alone.validation) == ["squares"]


@pytest.mark.parametrize("mix", ["batch", "sample"])
def test_a_text_share_of_nothing_gives_no_text(inputs: dict[str, str], mix: str) -> None:
    config = two_sources(inputs, text_ratio=Fraction(0), mix=mix)
    plan = make_plan(config, open_sources(config))
    assert plan.rows_per_source() == [STEPS * config.batch, 0]


def test_sources_of_one_name_are_numbered(inputs: dict[str, str]) -> None:
    same = (inputs["shards"] + "[30:40]",)
    config = two_sources(inputs, text=same, val_text=same, text_ratio=Fraction(1, 3))
    sources = open_sources(config)
    assert list(sources.train) == list(sources.validation) == ["squares", "squares-2"]
    assert sources.shares == {
        "squares": ((0, Fraction(2, 3)),), "squares-2": ((0, Fraction(1, 3)),)
    }  # fmt: skip
    assert positions(sources.train["squares-2"]) == list(range(30, 40))
    plan = make_plan(config, sources)
    assert [source.name for source in plan.sources] == ["squares", "squares-2"]
    stream = make_stream(config)
    rows = [row for step in range(STEPS) for row in stream.batch(step).rows]
    assert {row.source for row in rows} == {"squares", "squares-2"}
    assert all(
        row.segments[0].ref.position in range(30, 40) for row in rows if row.source == "squares-2"
    )


def test_the_plan_names_shards_that_open_to_the_same_rows(inputs: dict[str, str]) -> None:
    config = two_sources(inputs, shards=(inputs["shards"] + "[40:3:-2]",), mix="sample", seed=4)
    sources = open_sources(config)
    recipe = make_plan(config, sources).to_json()
    assert (recipe["batch"], recipe["steps"]) == (config.batch, STEPS)
    assert (recipe["seed"], recipe["mix_by"]) == (4, "sample")
    for source, shards in zip(recipe["sources"], sources.train.values(), strict=True):
        again = open_shards(source["spec"])
        assert len(again) == source["size"] == len(shards)
        assert again.digest == source["digest"] == shards.digest
        assert positions(again) == positions(shards)
