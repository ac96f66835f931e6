"""Which sample is shown which other sample's images."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.evaluation.swapped import SWAP_EVERY, derangement, swap_partners
from ocrtrain.evaluation.validation import ValidationOptions, validate
from tests.support import small

SETTINGS = ValidationOptions(seq_len=128, batch=5)


def test_images_are_swapped_among_samples_with_equally_many(tmp_path: Path) -> None:
    counts = [1, 0, 0, 2, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 0]
    names = ["red" if at < 6 else "blue" for at in range(len(counts))]
    samples = [
        small.coloured(name, count) if count else small.chat(1)
        for name, count in zip(names, counts, strict=True)
    ]
    shards = small.write(tmp_path / "mixed-000.tar", samples)
    third = range(0, len(shards), SWAP_EVERY)
    assert swap_partners(shards, third) == {0: 6, 6: 0, 3: 9, 9: 3}  # three images: no partner
    found = validate(small.untrained(), {"m": shards}, small.tokenizer(), SETTINGS)
    assert found.gain.samples == 4


def test_of_samples_with_the_same_images_only_the_first_is_swapped(tmp_path: Path) -> None:
    """A sample that got its own image back from another sample would show no image gain."""
    names = ["red", "red", "blue", "red", "blue", "green"]
    samples = [small.coloured(name) for name in names for _ in range(3)]
    few = small.write(tmp_path / "few-000.tar", samples)
    partners = swap_partners(few, range(0, len(few), SWAP_EVERY))
    assert sorted(partners) == sorted(partners.values()) == [0, 6, 15]
    same = small.write(tmp_path / "same-000.tar", [small.coloured("red") for _ in range(9)])
    assert swap_partners(same, range(len(same))) == {}


@given(st.lists(st.integers(), unique=True, max_size=40), st.text(max_size=5))
def test_a_derangement_maps_no_member_to_itself_and_loses_none(
    members: list[int], seed: str
) -> None:
    found = derangement(members, seed=seed)
    assert found == derangement(members, seed=seed)
    if len(members) < 2:
        assert found == {}
    else:
        assert list(found) == members
        assert sorted(found.values()) == sorted(members)
        assert all(member != other for member, other in found.items())


def test_derangements_never_change() -> None:
    """Image gains of older runs must stay comparable."""
    fixed = {0: 3, 1: 0, 2: 5, 3: 4, 4: 2, 5: 1}
    assert derangement(range(6), seed="20251020:1") == fixed
