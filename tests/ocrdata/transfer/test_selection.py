"""Which samples are chosen: filter and duplicates against oracles over the samples, what is left
out and why, and that nothing is read that is not needed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError, UsageError
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.view import Shards, open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.sample import Sample, from_turns
from ocrdata.transfer.condition import Condition
from ocrdata.transfer.selection import Selection, Wanted, select
from tests.support.rows import flip, image, write_tar
from tests.support.sets import varied, write_samples


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Shards]:
    """A plain and a compressed set of 50 samples together, in slices."""
    folder = tmp_path_factory.mktemp("selection")
    one = write_samples(folder, "one", [varied(number) for number in range(30)])
    two = write_samples(
        folder, "two", [varied(number) for number in range(30, 60)], ending=".tar.zst"
    )
    return [open_shards(f"{one}[3:28]"), open_shards(f"{two}[::-1]")[:25]]


def choose(views: list[Shards], **wanted: Any) -> Selection:
    return select(views, Wanted(**wanted), Progress())


def test_everything_is_chosen_without_a_condition(views: list[Shards]) -> None:
    found, samples = choose(views), [sample for view in views for sample in view]
    assert found.positions.tolist() == list(range(50))
    assert found.images.tolist() == [len(sample.images) for sample in samples]
    rows = [view.row(at) for view in views for at in range(len(view))]
    assert found.sizes.tolist() == [row.size for row in rows]
    assert (found.rejected, found.unknown, len(found.duplicates), found.unused) == (0, 0, 0, {})


def rating(sample: Sample) -> bool | None:
    value = sample.meta.get("rating")
    return None if value is None else value >= 2


def test_a_filter_counts_false_and_null_apart(views: list[Shards]) -> None:
    found = choose(views, condition=Condition("meta.rating >= 2"))
    judged = [rating(sample) for view in views for sample in view]
    assert found.positions.tolist() == [at for at, value in enumerate(judged) if value]
    assert (found.rejected, found.unknown) == (judged.count(False), judged.count(None))
    assert min(judged.count(value) for value in (True, False, None)) > 3


def first_with_images(samples: list[Sample]) -> list[int]:
    seen: set[tuple[bytes, ...]] = set()
    kept = []
    for at, sample in enumerate(samples):
        images = tuple(sample.images)
        if not images or images not in seen:
            kept.append(at)
        seen.add(images)
    return kept


def test_of_equal_images_in_equal_order_the_first_sample_stays(views: list[Shards]) -> None:
    samples = [sample for view in views for sample in view]
    found = choose(views, dedupe=True)
    assert found.positions.tolist() == first_with_images(samples)
    assert len(found.duplicates) == 50 - len(found) > 5
    for at, of in found.duplicates.tolist():
        assert samples[at].images == samples[of].images and of < at
        assert of in found.positions
    assert found.sizes.tolist() == choose(views).sizes[found.positions].tolist()


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=20), st.booleans())
@settings(max_examples=15)
def test_duplicates_and_contents_of_any_samples(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[int]], filtered: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    samples = [
        from_turns(
            [("q", "a")], [image("PNG", 4 + kind) for kind in kinds], source="s", meta={"n": n % 2}
        )
        for n, kinds in enumerate(drawn)
    ]
    view = open_shards(write_samples(folder, "any", samples, per_shard=7))
    condition = Condition("meta.n = 0") if filtered else None
    found = choose([view], condition=condition, dedupe=True, contents=True)
    before = [at for at in range(len(samples)) if not filtered or at % 2 == 0]
    kept = [before[at] for at in first_with_images([samples[at] for at in before])]
    assert found.positions.tolist() == kept
    digests: dict[int, list[int]] = {}
    for owner, digest in zip(found.owners.tolist(), found.digests.tolist(), strict=True):
        digests.setdefault(owner, []).append(digest)
    for owner, at in enumerate(kept):
        stored = view.image_digests(at) or [view.row(at).members[0].digest]
        wanted = [int.from_bytes(one[:8], "little", signed=True) for one in stored]
        assert digests[owner] == wanted


def test_what_is_read_is_said_before_and_images_are_not_read(
    views: list[Shards], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()
    plain = ShardSet.text_members

    def text_members(self: ShardSet, number: int, local: int) -> Mapping[str, bytes]:
        found = plain(self, number, local)
        read.update({name.rpartition(".")[2]: len(data) for name, data in found.items()})
        return found

    monkeypatch.setattr(ShardSet, "members", None)
    monkeypatch.setattr("ocrdata.transfer.selection.CHUNK_SAMPLES", 3)
    monkeypatch.setattr(ShardSet, "text_members", text_members)
    said = io.StringIO()
    select(views, Wanted(condition=Condition("images > 0"), dedupe=True), Progress(said))
    assert not read and "JSON" not in said.getvalue()
    assert said.getvalue().count("4 shards, 25 samples") == 2
    said = io.StringIO()
    select(views[:1], Wanted(condition=Condition("meta.number >= 0")), Progress(said))
    assert read["png"] == read["jpg"] == 0
    assert f"{read['json'] / 1000:.1f} KB" in said.getvalue()


def test_a_field_whose_type_changes_in_a_later_shard_is_judged_as_one_type(tmp_path: Path) -> None:
    values = [10] * 9 + ["ten", 9, "1"]
    samples = [from_turns([("q", "a")], [], source="s", meta={"x": value}) for value in values]
    view, said = open_shards(write_samples(tmp_path, "mixed", samples)), io.StringIO()
    found = select([view], Wanted(condition=Condition("meta.x > '9'")), Progress(said))
    assert found.positions.tolist() == [at for at, value in enumerate(values) if str(value) > "9"]
    assert found.positions.tolist() == [9] and found.rejected == 11
    assert "meta.x" in said.getvalue() and "again" in said.getvalue()


def test_a_damaged_json_stops_or_is_named(tmp_path: Path) -> None:
    spec = write_samples(tmp_path, "one", [varied(number) for number in range(12)])
    row = open_shards(spec).row(9)
    flip(tmp_path / "one-001.tar", row.members[0].offset + 3)
    view = open_shards(spec)
    with pytest.raises(ShardError) as caught:
        choose([view], condition=Condition("meta.number >= 0"))
    assert (caught.value.key, caught.value.member) == ("000000009", "000000009.json")
    found = choose([view], condition=Condition("meta.number >= 5"), skip_damaged=True)
    assert found.positions.tolist() == [5, 6, 7, 8, 10, 11]
    assert [at for at, _ in found.damaged] == [9] and "checksum" in found.damaged[0][1]
    assert (found.rejected, found.unknown) == (5, 0)
    # Without the meta nothing is read, so nothing is found to be damaged.
    assert len(choose([view], condition=Condition("turns > 0"))) == 12


def test_a_missing_field_is_an_error_of_the_whole_pass(views: list[Shards]) -> None:
    with pytest.raises(UsageError, match=r"meta\.ratng .*meta\.rating\?"):
        choose(views, condition=Condition("meta.ratng > 1 or images > 0"))


def test_members_that_no_sample_uses_are_counted(tmp_path: Path) -> None:
    files = [
        (f"{number}.{field}", data)
        for number in range(3)
        for field, data in (("jpg", image("JPEG")), ("txt", b"t"), ("seg.png", image("PNG")))
    ]
    view = open_shards(str(write_tar(tmp_path / "x-000.tar", [*files, ("3.cls", b"1")])))
    assert choose([view]).unused == {"seg.png": 3, "cls": 1}
    assert choose([view[:2]]).unused == {"seg.png": 2}
