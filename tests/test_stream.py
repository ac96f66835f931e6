"""From shards to batches: slices against a list's, shared images against the bytes themselves, and
the law that a batch is a function of the plan and the step."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError, SpecError, TransportError, UsageError
from ocrdata.image import decode_rgb
from ocrdata.loader import Loader
from ocrdata.plan import Plan
from ocrdata.reader import Shards, open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.tokenizer import load_tokenizer
from ocrtrain.bad import BadSamples
from ocrtrain.batch import identity_of
from ocrtrain.config import TEXT_RATIO, Config
from ocrtrain.flags import parse
from ocrtrain.planning import plan_run
from ocrtrain.presets import stage1
from ocrtrain.stream import (
    Sources,
    Stream,
    open_sources,
    open_training,
    rank_rows,
    shared_samples,
)
from tests.data import COLOURS, make_inputs, small_config, square, write_set
from tests.rows import flip

STEPS = 14

State = tuple[int, str]
"""The next step, and the plan's digest: all that a loader has to save."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def two_sources(inputs: dict[str, str], **values: object) -> Config:
    """Squares with sums mixed in."""
    text = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    return small_config(inputs, Path("unused"), **{"steps": STEPS, **text, **values})


def make_stream(config: Config) -> Stream:
    """All of it made anew, as another process would."""
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    return Stream(plan, sources, config, tokenizer=tokenizer)


def make_plan(config: Config, sources: Sources) -> Plan:
    return plan_run(config, sources, load_tokenizer(config.tokenizer)).plan


def positions(shards: Shards) -> list[int]:
    """Where the rows of a view stand in the whole set."""
    return [shards.ref(number).position for number in range(len(shards))]


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
    with pytest.raises(UsageError, match=r"--val .*\[0:0\] holds no samples"):
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


@pytest.mark.parametrize("mix", ["batch", "sample"])
def test_a_batch_holds_the_samples_its_plan_names(inputs: dict[str, str], mix: str) -> None:
    config = two_sources(inputs, mix=mix)
    sources = open_sources(config)
    plan, stream = make_plan(config, sources), make_stream(config)
    names, views = list(sources.train), list(sources.train.values())
    for step in range(STEPS):
        batch, places = stream.batch(step), [row[0] for row in plan.rows(step)]
        assert batch.step == step
        assert batch.refs == tuple(views[p.source].ref(p.position) for p in places)
        assert batch.sources == tuple(names[p.source] for p in places)
        shown = [data for p in places for data in views[p.source][p.position].images]
        assert len(shown) == len(batch.images)
        for data, image in zip(shown, batch.images, strict=True):
            assert np.array_equal(image.numpy(), decode_rgb(data))  # all are small: none shrinks


@pytest.fixture(scope="module", params=["batch", "sample"])
def identities(request: pytest.FixtureRequest, inputs: dict[str, str]) -> tuple[Config, list[str]]:
    """A config, and the identity of each of its batches."""
    config = two_sources(inputs, mix=request.param)
    stream = make_stream(config)
    return config, [stream.batch(step).identity for step in range(STEPS)]


def test_batches_differ(identities: tuple[Config, list[str]]) -> None:
    assert len(set(identities[1])) == STEPS


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("start", [0, 9])
def test_workers_and_a_resume_do_not_change_a_batch(
    identities: tuple[Config, list[str]], workers: int, start: int
) -> None:
    config, wanted = identities
    with Loader(make_stream(config).batch, start, stop=STEPS, workers=workers) as batches:
        assert [batch.identity for batch in batches] == wanted[start:]


@given(order=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=STEPS))
@settings(max_examples=15, deadline=None)
def test_a_batch_is_a_function_of_plan_and_step(
    identities: tuple[Config, list[str]], order: list[int]
) -> None:
    config, wanted = identities
    stream = make_stream(config)
    assert [stream.batch(step).identity for step in order] == [wanted[step] for step in order]


def test_what_the_plan_does_not_hold_changes_no_batch(
    identities: tuple[Config, list[str]],
) -> None:
    config, wanted = identities
    other = replace(config, lr=0.5, name="other", precision="fp32", micro_batch=1, workers=7)
    stream = make_stream(other)
    assert [stream.batch(step).identity for step in range(STEPS)] == wanted


@pytest.mark.parametrize(
    "values", [{"seed": 1}, {"image_size": 128}, {"text_ratio": Fraction(1, 2)}, {"batch": 3}]
)
def test_what_it_does_hold_changes_them(
    identities: tuple[Config, list[str]], values: dict[str, object]
) -> None:
    config, before = identities
    stream = make_stream(replace(config, **values))  # type: ignore[arg-type]
    assert [stream.batch(step).identity for step in range(STEPS)] != before


def test_copies_of_the_shards_elsewhere_give_the_same_batches(
    identities: tuple[Config, list[str]], inputs: dict[str, str], tmp_path: Path
) -> None:
    config, wanted = identities
    for path in Path(inputs["shards"]).parent.iterdir():
        shutil.copy(path, tmp_path)
    moved = [
        tuple(str(tmp_path / Path(text).name) for text in spec)
        for spec in (config.shards, config.text)
    ]
    stream = make_stream(replace(config, shards=moved[0], text=moved[1]))
    assert [stream.batch(step).identity for step in range(STEPS)] == wanted


def test_rows_are_cut_to_the_row_length(inputs: dict[str, str]) -> None:
    whole, short = make_stream(two_sources(inputs)), make_stream(two_sources(inputs, seq_len=20))
    for step in range(STEPS):
        tokens, batch = whole.batch(step).tokens, short.batch(step)
        assert batch.input_ids.shape[1] <= 20
        assert batch.tokens + batch.cut_tokens == tokens
    assert sum(short.batch(step).cut_tokens for step in range(STEPS)) > 0


@pytest.mark.parametrize("step", [-1, STEPS])
def test_steps_outside_the_plan(inputs: dict[str, str], step: int) -> None:
    with pytest.raises(IndexError, match=f"of a plan of {STEPS} steps"):
        make_stream(two_sources(inputs)).batch(step)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_stops_its_own_step_and_is_named(
    inputs: dict[str, str], tmp_path: Path, workers: int
) -> None:
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, tmp_path)
    spec = str(tmp_path / "squares-*.tar")
    bad = 17
    row = open_shards(spec).row(bad)
    image = next(member for member in row.members if not member.name.endswith(".json"))
    with open(tmp_path / "squares-000.tar", "r+b") as file:
        file.seek(image.offset)
        byte = file.read(1)
        file.seek(image.offset)
        file.write(bytes([byte[0] ^ 1]))
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",), steps=12)
    stream, plan = make_stream(config), make_plan(config, open_sources(config))
    at = next(step for step in range(12) if bad in {row[0].position for row in plan.rows(step)})
    place = rf"squares-000\.tar: sample {bad:09d}: member {image.name}"
    with Loader(stream.batch, 0, stop=12, workers=workers) as batches:
        assert [next(batches).step for _ in range(at)] == list(range(at))
        with pytest.raises(ShardError, match=place):
            next(batches)


def test_an_image_that_cannot_be_decoded_is_named(inputs: dict[str, str], tmp_path: Path) -> None:
    samples = [from_turns([("q", "a")], [square("red")[:-30]], source="", meta={})]
    spec = write_set(tmp_path, "broken", samples)
    config = small_config(
        inputs, tmp_path / "run", shards=(spec,), val=(spec + "[:]",), train_slice="[:]"
    )
    with pytest.raises(ShardError, match=r"broken-000\.tar: sample 000000000: image 0: "):
        make_stream(config).batch(0)


rows_of_images = st.lists(
    st.lists(st.sampled_from(range(len(COLOURS))), max_size=3), min_size=1, max_size=8
)


@given(train=rows_of_images, text=rows_of_images, validation=rows_of_images, data=st.data())
@settings(max_examples=15, deadline=None)
def test_shared_samples_are_those_with_equal_bytes(
    train: list[list[int]], text: list[list[int]], validation: list[list[int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        views = {}
        for kind, rows in (("train", train), ("text", text), ("val", validation)):
            samples = [
                from_turns([("q", "a")], [square(COLOURS[n]) for n in row], source="", meta={})
                for row in rows
            ]
            view = open_shards(write_set(Path(name), kind, samples, per_shard=3))
            first = data.draw(st.integers(0, len(rows)))
            views[kind] = view[first:]
        sources = Sources(
            train={"train": views["train"], "text": views["text"]},
            shares={"train": Fraction(1, 2), "text": Fraction(1, 2)},
            validation={"val": views["val"], "train": views["train"][:2]},
        )

        def shown(sample: Sample) -> list[bytes]:
            return sample.images or [sample.to_json()]

        seen = {
            piece for view in sources.train.values() for sample in view for piece in shown(sample)
        }
        wanted = sum(
            bool(seen.intersection(shown(sample)))
            for view in sources.validation.values()
            for sample in view
        )
        assert shared_samples(sources) == wanted


KINDS: dict[str, dict[str, object]] = {
    "single source": {"text": (), "val_text": ()},
    "mix": {"mix": "sample", "text_ratio": Fraction(1, 3)},
    "packed mix": {"pack": True, "pack_window": 16, "row_images": 4, "weigh_by": "tokens"},
}
WORKERS, WORLDS = (0, 1, 2, 4), (1, 2, 4)
STOP = 6


def read_ranks(config: Config, workers: int, world: int, steps: range) -> list[tuple[str, State]]:
    """Each step's global identity and the state to save after it, from `world` ranks that each
    have loaders of their own."""
    streams = [make_stream(config) for _ in range(world)]
    loaders = [
        Loader(
            partial(stream.part, rows=rank_rows(config.batch, rank, world)),
            steps.start, stop=steps.stop, workers=workers,
        )
        for rank, stream in enumerate(streams)
    ]  # fmt: skip
    found = []
    for _ in steps:
        parts = [next(loader) for loader in loaders]
        rows = [identity for part in parts for identity in part.row_identities]
        states = {(loader.step, stream.plan.digest)
                  for loader, stream in zip(loaders, streams, strict=True)}  # fmt: skip
        (state,) = states  # every rank would save the same
        found.append((identity_of(rows), state))
    for loader in loaders:
        loader.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_any_workers_and_world_size_go_on_from_any_other(inputs: dict[str, str], kind: str) -> None:
    config = two_sources(inputs, batch=4, **KINDS[kind])
    stream = make_stream(config)
    whole = [stream.batch(step) for step in range(STEPS)]
    wanted = [batch.identity for batch in whole]
    assert len(set(wanted)) == STEPS
    if kind != "single source":
        assert len({source for batch in whole for source in batch.sources}) == 2
    if kind == "packed mix":
        assert max(len(row.segments) for batch in whole for row in batch.rows) > 2
    saved = set()
    for workers in WORKERS:
        for world in WORLDS:
            before = read_ranks(config, workers, world, range(STOP))
            assert [identity for identity, _ in before] == wanted[:STOP]
            saved.add(before[-1][1])
    (state,) = saved  # all twelve writers save the same
    step, plan = state
    assert (step, plan) == (STOP, stream.plan.digest)
    for workers in WORKERS:
        for world in WORLDS:
            after = read_ranks(config, workers, world, range(step, STEPS))
            assert [identity for identity, _ in after] == wanted[STOP:]


@pytest.mark.parametrize("kind", KINDS)
def test_over_a_run_nothing_is_lost_or_repeated(inputs: dict[str, str], kind: str) -> None:
    config = two_sources(inputs, batch=4, at_end="stop", steps=100, **KINDS[kind])
    stream = make_stream(config)
    drawn = Counter(
        (part.source, part.ref.key)
        for step in range(stream.plan.steps)
        for part in stream.batch(step).segments
    )
    assert set(drawn.values()) == {1}
    ended = stream.plan.sources[stream.plan.ended_by]
    assert sum(source == ended.name for source, _ in drawn) > ended.size - 3 * config.batch


def test_ranks_that_cannot_share(inputs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="a batch of 4 rows cannot be shared out among 3 ranks"):
        rank_rows(4, 0, 3)
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(UsageError, match=f"rank {rank} of {world}"):
            rank_rows(4, rank, world)


def damaged(inputs: dict[str, str], folder: Path, bad: int) -> str:
    """A copy of the squares in which one image has a wrong bit."""
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, folder)
    spec = str(folder / "squares-*.tar")
    row = open_shards(spec).row(bad)
    image = next(member for member in row.members if not member.name.endswith(".json"))
    flip(folder / f"squares-{bad // 20:03d}.tar", image.offset + 9)
    return spec


@pytest.mark.parametrize("pack", [False, True])
def test_a_skipped_sample_leaves_a_hole_and_no_other_takes_its_place(
    inputs: dict[str, str], tmp_path: Path, pack: bool
) -> None:
    spec = damaged(inputs, tmp_path, 17)
    values: dict[str, object] = {"pack": pack, "pack_window": 16, "row_images": 3}
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",), **values)
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    skipping = Stream(plan, sources, config, tokenizer=tokenizer, bad=BadSamples(skip=True))
    sound = make_stream(small_config(inputs, tmp_path / "run", **values))
    holes = 0
    for step in range(12):
        found, whole = skipping.batch(step), sound.batch(step)
        assert [part.ref for part in found.segments] == [part.ref for part in whole.segments]
        for part in found.segments:
            assert bool(part.bad) == (part.ref.position == 17)
            holes += bool(part.bad)
            if part.bad:
                assert "digest differs" in part.bad and part.length == 1
        assert len(found.bad) == sum(part.ref.position == 17 for part in whole.segments)
        if not found.bad:
            assert found.identity == whole.identity
    assert holes


def test_a_known_bad_sample_is_not_read_again(inputs: dict[str, str], tmp_path: Path) -> None:
    """What was skipped stays skipped where the shard has been mended since."""
    spec = damaged(inputs, tmp_path, 17)
    config = small_config(inputs, tmp_path, shards=(spec + "[:48]",), bad_samples="skip")
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    first = BadSamples(skip=True, limit=9)
    stream = Stream(plan, sources, config, tokenizer=tokenizer, bad=first)
    before = [stream.batch(step) for step in range(12)]
    for batch in before:
        first.record(tmp_path, batch)
    again = BadSamples(limit=9)
    again.load(tmp_path)
    assert len(again) == 1
    sound = small_config(inputs, tmp_path)
    replayed = Stream(plan, open_sources(sound), sound, tokenizer=tokenizer, bad=again)
    assert [replayed.batch(step).identity for step in range(12)] == [b.identity for b in before]


def test_a_shard_that_is_gone_is_never_skipped(inputs: dict[str, str], tmp_path: Path) -> None:
    spec = damaged(inputs, tmp_path, 17)
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",))
    sources, tokenizer = open_sources(config), load_tokenizer(config.tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    stream = Stream(plan, sources, config, tokenizer=tokenizer, bad=BadSamples(skip=True))
    for path in tmp_path.glob("squares-*.tar"):
        path.unlink()
    with pytest.raises(TransportError, match="the file is gone"):
        for step in range(12):
            stream.batch(step)
