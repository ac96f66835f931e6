"""From shards to batches: a batch is a function of the plan and the step; and shared samples."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError
from ocrdata.images.decode import decode_rgb
from ocrdata.reading.prefetch import Prefetcher
from ocrdata.reading.view import open_shards
from ocrdata.sample import from_turns
from ocrtrain.data.sources import open_sources
from ocrtrain.settings.config import Config
from tests.support.data import small_config, square, write_set
from tests.support.streams import STEPS, make_plan, make_stream, two_sources


@pytest.mark.parametrize("mix", ["batch", "sample"])
def test_a_batch_holds_the_samples_its_plan_names(inputs: dict[str, str], mix: str) -> None:
    config = two_sources(inputs, mix=mix)
    sources = open_sources(config)
    plan, stream = make_plan(config, sources), make_stream(config)
    names, views = list(sources.train), list(sources.train.values())
    for step in range(STEPS):
        batch, samples = stream.batch(step), [row[0] for row in plan.rows(step)]
        assert batch.step == step
        assert batch.refs == tuple(views[s.source].ref(s.position) for s in samples)
        assert batch.sources == tuple(names[s.source] for s in samples)
        shown = [data for s in samples for data in views[s.source][s.position].images]
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
    with Prefetcher(make_stream(config).assembly, start, stop=STEPS, workers=workers) as batches:
        assert [batch.identity for batch in batches] == wanted[start:]


@given(order=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=STEPS))
@settings(max_examples=15, deadline=None)
def test_a_batch_is_a_function_of_plan_and_step(
    identities: tuple[Config, list[str]], order: list[int]
) -> None:
    config, wanted = identities
    stream = make_stream(config)
    assert [stream.batch(step).identity for step in order] == [wanted[step] for step in order]


def test_settings_outside_the_plan_change_no_batch(
    identities: tuple[Config, list[str]],
) -> None:
    config, wanted = identities
    other = replace(config, lr=0.5, name="other", precision="fp32", micro_batch=1, workers=7)
    stream = make_stream(other)
    assert [stream.batch(step).identity for step in range(STEPS)] == wanted


@pytest.mark.parametrize(
    "values", [{"seed": 1}, {"image_size": 128}, {"text_ratio": Fraction(1, 2)}, {"batch": 3}]
)
def test_settings_in_the_plan_change_batches(
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


def test_samples_are_truncated_to_seq_len(inputs: dict[str, str]) -> None:
    whole, short = make_stream(two_sources(inputs)), make_stream(two_sources(inputs, seq_len=20))
    for step in range(STEPS):
        tokens, batch = whole.batch(step).tokens, short.batch(step)
        assert batch.input_ids.shape[1] <= 20
        assert batch.tokens + batch.truncated_tokens == tokens
    assert sum(short.batch(step).truncated_tokens for step in range(STEPS)) > 0


@pytest.mark.parametrize("step", [-1, STEPS])
def test_a_step_outside_the_plan_is_an_error(inputs: dict[str, str], step: int) -> None:
    with pytest.raises(IndexError, match=rf"\b{STEPS} steps"):
        make_stream(two_sources(inputs)).batch(step)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_is_an_error_at_its_own_step(
    inputs: dict[str, str], tmp_path: Path, workers: int
) -> None:
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, tmp_path)
    spec = str(tmp_path / "squares-*.tar")
    damaged = 17
    row = open_shards(spec).row(damaged)
    image = next(member for member in row.members if not member.name.endswith(".json"))
    with open(tmp_path / "squares-000.tar", "r+b") as file:
        file.seek(image.offset)
        byte = file.read(1)
        file.seek(image.offset)
        file.write(bytes([byte[0] ^ 1]))
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:48]",), steps=12)
    stream, plan = make_stream(config), make_plan(config, open_sources(config))
    at = next(step for step in range(12) if damaged in {row[0].position for row in plan.rows(step)})
    wanted = rf"squares-000\.tar: sample {damaged:09d}: member {image.name}"
    with Prefetcher(stream.assembly, 0, stop=12, workers=workers) as batches:
        assert [next(batches).step for _ in range(at)] == list(range(at))
        with pytest.raises(ShardError, match=wanted):
            next(batches)


def test_an_image_that_cannot_be_decoded_is_named(inputs: dict[str, str], tmp_path: Path) -> None:
    samples = [from_turns([("q", "a")], [square("red")[:-30]], source="", meta={})]
    spec = write_set(tmp_path, "broken", samples)
    config = small_config(
        inputs, tmp_path / "run", shards=(spec,), val=(spec + "[:]",), train_slice="[:]"
    )
    with pytest.raises(ShardError, match=r"broken-000\.tar: sample 000000000: image 0: "):
        make_stream(config).batch(0)
