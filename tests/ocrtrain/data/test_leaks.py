"""Validation samples that are also trained on, compared with a search through all bytes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.writer import ShardWriter
from ocrtrain.commands import plan
from ocrtrain.data.leaks import check_leaks, find_leaks
from ocrtrain.data.sources import open_sources
from ocrtrain.run.launch import train
from tests.support.data import COLOURS, flags, small_config, square
from tests.support.streams import two_sources

samples = st.lists(
    st.tuples(
        st.integers(0, 6),  # key
        st.lists(st.sampled_from(range(len(COLOURS))), max_size=3),
        st.sampled_from(["q", "w"]),
    ),
    min_size=1, max_size=8, unique_by=lambda row: row[0],
).map(sorted)  # fmt: skip
bounds = st.tuples(st.integers(0, 8), st.sampled_from([1, 2, -1]))


def written(folder: Path, name: str, rows: list[tuple[int, list[int], str]]) -> Shards:
    for number, start in enumerate(range(0, len(rows), 3)):
        with ShardWriter(folder / f"{name}-{number:03d}.tar") as writer:
            for key, images, question in rows[start : start + 3]:
                pictures = [square(COLOURS[n]) for n in images]
                sample = from_turns([(question, "a")], pictures, source="", meta={})
                writer.write(f"{key:09d}", sample)
    return open_shards(str(folder / f"{name}-*.tar"))


def contents(sample: Sample) -> list[bytes]:
    return sample.images or [sample.to_json()]


@given(rows=st.tuples(samples, samples, samples), cuts=st.tuples(bounds, bounds, bounds))
@settings(max_examples=12, deadline=None)
def test_leaks_are_those_a_search_through_all_bytes_finds(
    rows: tuple[list[tuple[int, list[int], str]], ...], cuts: tuple[tuple[int, int], ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = ("a", "b", "val")
        a, b, val = (
            written(Path(folder), name, own)[start::step]
            for name, own, (start, step) in zip(names, rows, cuts, strict=True)
        )
        train = {"a": a, "b": b}
        validation = {"val": val, "first of a": open_shards(f"{folder}/a-*.tar")[:2]}
        found = find_leaks(train, validation)

        # The same sample: the same key and the same bytes, in whatever shard it is.
        keyed = {
            name: [(view.ref(at).key, sample.to_json(), tuple(sample.images))
                   for at, sample in enumerate(view)]
            for name, view in {**train, **validation}.items()
        }  # fmt: skip
        wanted = {
            (own, other): sum(one in keyed[own] for one in keyed[other])
            for own in validation
            for other in train
        }
        counts = {pair: count for pair, (count, _) in found.samples.items()}
        assert counts == {pair: count for pair, count in wanted.items() if count}
        for own, first in ((own, ref) for (own, _), (_, ref) in found.samples.items()):
            refs = [validation[own].ref(at) for at in range(len(validation[own]))]
            assert first in refs
        all_wanted = [one for own in validation for one in keyed[own]]
        others = {
            part
            for name, view in train.items()
            for one, sample in zip(keyed[name], view, strict=True)
            if one not in all_wanted
            for part in contents(sample)
        }
        assert found.similar == sum(
            bool(others.intersection(contents(sample)))
            for view in validation.values()
            for sample in view
        )


def test_a_leak_stops_the_run_and_the_plan(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = inputs["shards"]
    config = small_config(inputs, tmp_path / "run", shards=(spec + "[:50]",), steps=3)
    wanted = r"2 of the 12 .*squares.* squares-002\.tar: sample 000000048; .*--allow-leak"
    with pytest.raises(UsageError, match=wanted):
        train(config)
    with pytest.raises(UsageError, match=wanted):
        plan.main(flags(config))
    assert not (tmp_path / "run").exists()
    assert plan.main(flags(replace(config, allow_leak=True))) == 0
    assert "WARNING: 2 of the 12" in capsys.readouterr().out


def test_the_same_image_in_another_sample_is_only_counted(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """The same bytes under another key: repetitions that a data set has by nature."""
    view = open_shards(inputs["shards"])
    with ShardWriter(tmp_path / "copies-000.tar") as writer:
        for at in range(5):
            writer.write(f"{at + 500:09d}", view[at])
    config = two_sources(inputs, val=(str(tmp_path / "copies-000.tar"),))
    (line,) = check_leaks(open_sources(config), allow=False)
    assert "5 validation samples" in line


def test_without_validation_samples_nothing_is_compared() -> None:
    assert find_leaks({}, {}).samples == {}
