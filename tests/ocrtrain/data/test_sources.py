"""The shards a config opens: slices compared with those of a list, weights, names, mistakes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SpecError, UsageError
from ocrdata.reading.view import open_shards
from ocrtrain.data.sources import GRID, hold_out, open_sources, open_training, shared_weight
from ocrtrain.settings.config import TEXT_RATIO, Config
from ocrtrain.settings.flags import parse
from ocrtrain.settings.presets import stage1
from tests.support.data import colour_sample, small_config, text_sample, write_set
from tests.support.streams import STEPS, make_plan, make_stream, positions, two_sources

bounds = st.one_of(st.none(), st.integers(-70, 70))
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2, 7, -1, -3]))


def written(found: slice) -> str:
    parts = [found.start, found.stop] + ([found.step] if found.step is not None else [])
    return "[" + ":".join("" if part is None else str(part) for part in parts) + "]"


@given(default=slices, own=st.one_of(st.none(), slices), flag=st.sampled_from(["shards", "val"]))
@settings(max_examples=60, deadline=None)
def test_a_spec_without_its_own_slice_gets_the_default_slice(
    inputs: dict[str, str], default: slice, own: slice | None, flag: str
) -> None:
    spec = inputs["shards"] + (written(own) if own is not None else "")
    values: dict[str, object] = {
        "shards": {"shards": (spec,), "train_slice": written(default)},
        "val": {"val": (spec,), "val_slice": written(default)},
    }[flag]  # type: ignore[assignment]
    config = replace(small_config(inputs, Path("unused")), **values)  # type: ignore[arg-type]
    # Shards named for validation are used whole; only training shards have a default slice.
    without = default if flag == "shards" else slice(None)
    wanted = list(range(60))[own if own is not None else without]
    if not wanted:
        with pytest.raises(UsageError, match=rf"^--{flag} .* holds no samples"):
            open_sources(config)
        return
    sources = open_sources(config)
    found = sources.train if flag == "shards" else sources.validation
    assert {name: positions(shards) for name, shards in found.items()} == {"squares": wanted}


def test_a_full_slice_overrides_the_default(inputs: dict[str, str]) -> None:
    config = two_sources(
        inputs, shards=(inputs["shards"] + "[:]",), text=(inputs["text"] + "[:]",),
        train_slice="[:5]", text_train_slice="[:5]",
    )  # fmt: skip
    sources = open_sources(config)
    assert {name: len(shards) for name, shards in sources.train.items()} == {
        "squares": 60,
        "sums": 40,
    }


def test_each_flag_has_its_own_default_slice(inputs: dict[str, str]) -> None:
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


def test_without_val_the_default_slice_of_the_training_set_validates(
    inputs: dict[str, str],
) -> None:
    """--val-slice applies to the whole set, whatever slice --shards has."""
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


def test_joined_sets_are_one_source_whose_slice_may_not_leave_out_a_whole_set(
    inputs: dict[str, str],
) -> None:
    both = (inputs["text"], inputs["shards"])
    config = two_sources(inputs, text=both, text_train_slice="[:41]", join_sets=True)
    assert len(open_sources(config).train["sums"]) == 41
    with pytest.raises(UsageError, match=r"^--text .*\b2 sets.*squares"):
        open_sources(replace(config, text_train_slice="[:40]"))
    with pytest.raises(UsageError, match=r"sums.* --text-train-slice '\[:\]'"):
        open_sources(replace(config, text_train_slice="[40:]"))
    config = replace(config, shards=both, text=(), text_ratio=TEXT_RATIO, train_slice="[:9]")
    with pytest.raises(UsageError, match=r"^--shards .*\b2 sets.*--train-slice"):
        open_sources(config)


def test_an_empty_slice_is_an_error_that_names_its_flag(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    config = small_config(inputs, tmp_path / "run", val=(inputs["shards"] + "[100:]",))
    with pytest.raises(UsageError, match=r"--val .* holds no samples"):
        open_sources(config)
    config = small_config(
        inputs, tmp_path / "run", val=(), shards=(inputs["shards"],), val_slice="[18000:18101]"
    )
    with pytest.raises(UsageError, match=r"--val .*\[18000:18101\] holds no samples"):
        open_sources(config)
    nothing = (inputs["text"] + "[40:]",)
    with pytest.raises(UsageError, match=r"^--text .* holds no samples"):
        open_sources(two_sources(inputs, text=nothing))
    with pytest.raises(UsageError, match=r"^--val-text .* holds no samples"):
        open_sources(two_sources(inputs, val_text=nothing))


def test_the_slice_suggested_for_several_sets_works(inputs: dict[str, str]) -> None:
    sets = (inputs["shards"], inputs["text"])
    config = two_sources(inputs, val_text=sets, join_sets=True)
    assert len(open_sources(config).validation["squares-2"]) == 100
    config = replace(config, val_text=(), text_val_slice="[500:]", text=sets)
    with pytest.raises(UsageError, match=r"holds no samples") as caught:
        open_sources(replace(config, text_train_slice="[:]"))
    (typed,) = shlex.split(str(caught.value).split("such as --val-text ")[1])
    assert len(open_shards(typed)) == 10, "a tenth of all"


def test_several_specs_keep_their_names_and_slices(inputs: dict[str, str]) -> None:
    """They share the weight of their kind by their numbers of samples."""
    squares, sums = inputs["shards"], inputs["text"]
    config = two_sources(
        inputs, shards=(squares + "[:10]", squares + "[30:50]", sums + "[5:15]"),
        text=(sums + "[20:30]",), val=(squares + "[50:]", sums + "[15:18]"), val_text=(),
        text_ratio=Fraction(1, 5), text_ratio_at=("7:3/5",),
    )  # fmt: skip
    sources = open_sources(config)
    assert {name: positions(shards) for name, shards in sources.train.items()} == {
        "squares": list(range(10)), "squares-2": list(range(30, 50)),
        "sums": list(range(5, 15)), "sums-2": list(range(20, 29)),
    }  # fmt: skip
    assert {name: positions(shards) for name, shards in sources.validation.items()} == {
        "squares": list(range(50, 60)), "sums": [15, 16, 17], "sums-2": [29],
    }  # fmt: skip
    for start, text in ((0, Fraction(1, 5)), (7, Fraction(3, 5))):
        weights = {name: dict(own)[start] for name, own in sources.weights.items()}  # type: ignore[arg-type]
        assert sum(weights.values()) == 1
        assert weights["sums-2"] == text
        for name, part in (("squares", 1), ("squares-2", 2), ("sums", 1)):
            wanted = (1 - text) * Fraction(part, 4)
            assert weights[name] == wanted
    found = make_plan(config, sources)
    assert [source.name for source in found.sources] == list(sources.train)
    stream = make_stream(config)
    segments = [one for step in range(STEPS) for one in stream.batch(step).segments]
    assert {one.source for one in segments} == set(sources.train)
    for one in segments:
        assert one.ref.position in positions(sources.train[one.source])


def test_shards_of_one_set_keep_their_own_slices(inputs: dict[str, str]) -> None:
    tars = [inputs["shards"].replace("*", f"{number:03d}") for number in range(2)]
    config = small_config(inputs, Path("unused"), shards=(tars[0] + "[:5]", tars[1] + "[7:9]"))
    train = open_training(config).train
    refs = [(name, shards.ref(at).key) for name, shards in train.items() for at in (0, -1)]
    assert refs == [("squares", "000000000"), ("squares", "000000004"),
                    ("squares-2", "000000027"), ("squares-2", "000000028")]  # fmt: skip


@given(sizes=st.lists(st.integers(1, 10**7), min_size=1, max_size=9))
def test_sources_share_a_weight_by_their_numbers_of_samples(sizes: list[int]) -> None:
    views = {f"s{number}": range(size) for number, size in enumerate(sizes)}
    found = shared_weight(Fraction(2, 3), views)
    assert sum(found.values()) == Fraction(2, 3)  # type: ignore[arg-type]
    for weight, size in zip(found.values(), sizes, strict=True):
        assert weight > 0  # type: ignore[operator]
        wanted = Fraction(2, 3) * Fraction(size, sum(sizes))
        assert abs(weight - wanted) <= Fraction(len(sizes), GRID)  # type: ignore[operator]
        assert GRID % (weight / Fraction(2, 3)).denominator == 0  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("size", "count"), [(2, 1), (10, 1), (199, 1), (250, 2), (9_999, 99), (12_345, 100)]
)
def test_a_set_without_validation_samples_is_validated_on_its_last_percent(
    size: int, count: int
) -> None:
    train, held_out = hold_out("x", Sized(range(size)), "")  # type: ignore[arg-type]
    assert list(held_out) == list(range(size - count, size))  # type: ignore[arg-type]
    assert list(train) == list(range(size - count))  # type: ignore[arg-type]


class Sized(list[int]):
    """Stands for a view of this many samples."""

    spec = "x.tar"

    def __getitem__(self, at: Any) -> Any:
        return Sized(super().__getitem__(at))


def test_the_last_percent_is_the_training_slice_s_and_is_told(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    config = two_sources(inputs, shards=(inputs["shards"],), text=(inputs["text"] + "[:30]",),
                         val=(), val_text=())  # fmt: skip
    sources = open_sources(config)
    assert {name: positions(shards) for name, shards in sources.train.items()} == {
        "squares": list(range(59)), "sums": list(range(29)),
    }  # fmt: skip
    assert {name: positions(shards) for name, shards in sources.validation.items()} == {
        "squares": [59], "sums": [29],
    }  # fmt: skip
    assert sources.held_out == {"squares", "sums"}
    for line, name in zip(sources.describe(), ("squares", "sums"), strict=True):
        assert f"1 sample of {name} " in line and line.endswith("not trained on")
    training = open_training(config)
    assert [view.digest for view in training.train.values()] == [
        view.digest for view in sources.train.values()
    ]
    one = write_set(tmp_path, "one", [colour_sample(1)])
    with pytest.raises(UsageError, match=r"^one .*1 sample.*--val"):
        open_sources(replace(config, shards=(one,)))


def test_the_slices_of_the_experiment_are_the_default_of_large_sets(tmp_path: Path) -> None:
    """By positions alone: 18,050 samples with one member each."""
    spec = write_set(tmp_path, "large", [text_sample(1)] * 18_003, per_shard=18_003)
    config = Config(shards=(spec,))
    sources = open_sources(config)
    assert (len(sources.train["large"]), len(sources.validation["large"])) == (18_000, 3)
    assert sources.validation["large"].spec.endswith("[18000:18003]")
    assert sources.held_out == frozenset()


@pytest.mark.parametrize("count", [1, 3])
def test_the_slices_suggested_for_an_empty_one_work(inputs: dict[str, str], count: int) -> None:
    tars = [inputs["shards"].replace("*", f"{number:03d}") for number in range(count)]
    config = small_config(inputs, Path("unused"), val=(*tars[:-1], tars[-1] + "[5:5]"))
    with pytest.raises(UsageError) as caught:
        open_sources(config)
    words = shlex.split(str(caught.value).split("such as ")[1])
    typed = parse(words, stage1, prog="stage1", description="").config.val
    again = open_sources(replace(config, val=typed))
    assert positions(again.validation["squares"]) == list(range(20 * count))[-2 * count :]
    assert f"there are {20 * count} without" in str(caught.value)


@pytest.mark.parametrize("text", [True, False])
def test_training_sources_open_without_the_validation_shards(
    inputs: dict[str, str], text: bool
) -> None:
    none: dict[str, object] = {} if text else {"text": (), "val_text": ()}
    wanted = open_sources(two_sources(inputs, **none))
    found = open_training(two_sources(inputs, **none, val=("gone.tar",)))
    assert (found.weights, found.validation) == (wanted.weights, {})
    assert list(found.train) == list(wanted.train)
    assert [view.digest for view in found.train.values()] == [
        view.digest for view in wanted.train.values()
    ]


def test_missing_shards_are_an_error(inputs: dict[str, str], tmp_path: Path) -> None:
    absent = (str(tmp_path / "absent-*.tar"),)
    for name in ("shards", "val", "text", "val_text"):
        with pytest.raises(SpecError, match=r"absent-\*\.tar"):
            open_sources(two_sources(inputs, **{name: absent}))


def test_weights_follow_the_text_ratio(inputs: dict[str, str]) -> None:
    ratio = Fraction(2, 7)
    mixed = open_sources(two_sources(inputs, text_ratio=ratio))
    assert mixed.weights == {"squares": ((0, 1 - ratio),), "sums": ((0, ratio),)}
    alone = open_sources(small_config(inputs, Path("unused"), text_ratio=ratio))
    assert alone.weights == {"squares": Fraction(1)}
    assert list(alone.train) == list(alone.validation) == ["squares"]


@pytest.mark.parametrize("mix", ["batch", "sample"])
def test_a_text_ratio_of_zero_gives_no_text(inputs: dict[str, str], mix: str) -> None:
    config = two_sources(inputs, text_ratio=Fraction(0), mix=mix)
    plan = make_plan(config, open_sources(config))
    assert plan.rows_per_source() == [STEPS * config.batch, 0]


@pytest.mark.parametrize("mix", ["batch", "sample"])
def test_a_text_ratio_of_one_gives_text_alone(inputs: dict[str, str], mix: str) -> None:
    beside = two_sources(inputs, text_ratio=Fraction(1), mix=mix)
    assert make_plan(beside, open_sources(beside)).rows_per_source() == [0, STEPS * beside.batch]
    alone = replace(beside, shards=(), val=())
    sources = open_sources(alone)
    assert list(sources.train) == list(sources.validation) == ["sums"]
    assert make_plan(alone, sources).rows_per_source() == [STEPS * alone.batch]
    ending = two_sources(inputs, text_ratio=Fraction(0), text_ratio_at=("7:1",), mix=mix)
    rows = make_plan(ending, open_sources(ending)).rows_per_source()
    assert rows == [7 * ending.batch, (STEPS - 7) * ending.batch]


def test_sources_with_the_same_name_are_numbered(inputs: dict[str, str]) -> None:
    same = (inputs["shards"] + "[30:40]",)
    config = two_sources(inputs, text=same, val_text=same, text_ratio=Fraction(1, 3))
    sources = open_sources(config)
    assert list(sources.train) == list(sources.validation) == ["squares", "squares-2"]
    assert sources.weights == {
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


def test_the_specs_in_a_plan_open_the_same_samples(inputs: dict[str, str]) -> None:
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
