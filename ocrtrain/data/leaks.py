"""Looks for validation samples in the training data, from indexes alone.

The same sample (equal `SampleRef.digest`: its key and the bytes of all members) in both makes a
validation loss too good to be true: `check_leaks` raises, unless that is allowed. The same image in
another sample, or the same conversation of a sample without images, is only counted: data sets hold
such repetitions by nature. Training samples are compared a shard at a time, as arrays; memory grows
with the validation sets alone.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ocrdata.errors import UsageError
from ocrdata.reading.view import SampleRef, Shards
from ocrdata.runtime.progress import progress_bar
from ocrdata.shards.arrow import Int64
from ocrtrain.data.sources import Sources

Digests = npt.NDArray[np.bytes_]
"""Digests of 16 bytes each, "S16"."""


@dataclass
class Leaks:
    """What the training data share with the validation sets.

    `samples` has an entry for each pair of a validation and a training source that share samples:
    how many, and the first of them. `similar` counts the validation samples of which another
    training sample has an image, or the conversation if they have none.
    """

    samples: dict[tuple[str, str], tuple[int, SampleRef]] = field(default_factory=dict)
    similar: int = 0


def check_leaks(sources: Sources, *, allow: bool) -> list[str]:
    """Look for validation samples that are trained on; the warnings to print.

    Raises UsageError if a sample is in both, unless `allow` is set.
    """
    leaks = find_leaks(sources.train, sources.validation)
    warnings = []
    for (validation, train), (count, first) in leaks.samples.items():
        found = (
            f"{count:,} of the {len(sources.validation[validation]):,} validation samples of "
            f"{validation} are also trained on, in {train}; the first is {first.shard}: sample "
            f"{first.key}"
        )
        if not allow:
            raise UsageError(
                f"{found}; train and validate on separate slices, such as [:-100] and [-100:], or "
                "accept it with --allow-leak"
            )
        warnings.append(f"WARNING: {found}")
    if leaks.similar:
        warnings.append(
            f"WARNING: of {leaks.similar:,} validation samples an image, or the conversation "
            "without images, is also in other training samples (same bytes)"
        )
    return warnings


def find_leaks(train: Mapping[str, Shards], validation: Mapping[str, Shards]) -> Leaks:
    """What these sources share. Raises ShardError for damaged indexes."""
    leaks, wanted = Leaks(), _Wanted(validation)
    if not wanted.refs:
        return leaks
    with progress_bar(
        sum(map(len, train.values())),
        " samples",
        description="comparing training and validation samples",
        delay=1,
    ) as bar:
        for name, shards in train.items():
            for first, number, locals_ in shards.stretches():
                same = _compare(wanted, shards, number, first, np.asarray(locals_, np.int64))
                for source, ref in same:
                    count, earliest = leaks.samples.get((source, name), (0, ref))
                    leaks.samples[source, name] = (count + 1, earliest)
                bar.update(len(locals_))
    leaks.similar = len(np.unique(wanted.owners[wanted.seen[wanted.places]]))
    return leaks


class _Wanted:
    """The samples of all validation sets, ready to be looked up.

    `refs` holds the source and the reference of each by its digest, which several sets may share.
    `sums` are the sums of the digests of a sample's members, sorted: equal for equal samples.
    `contents` are the digests of images, or of conversations without images, sorted; content
    `places[n]` belongs to sample `owners[n]`, and `seen` says which were found.
    """

    def __init__(self, validation: Mapping[str, Shards]) -> None:
        self.refs: dict[str, list[tuple[str, SampleRef]]] = defaultdict(list)
        self.keys: set[str] = set()
        sums, contents, owners = [], [], []
        for owner, (name, shards, position) in enumerate(_samples(validation)):
            members = [member.digest for member in shards.row(position).members]
            ref = shards.ref(position)
            self.refs[ref.digest].append((name, ref))
            self.keys.add(ref.key)
            sums.append(_sums(np.frombuffer(b"".join(members), "<u8"), np.zeros(1, np.int64)))
            for content in shards.image_digests(position) or members:
                contents.append(content)
                owners.append(owner)
        self.sums = np.unique(np.concatenate(sums)) if sums else np.empty(0, np.uint64)
        self.contents, self.places = np.unique(np.array(contents, "S16"), return_inverse=True)
        self.owners = np.array(owners, np.int64)
        self.seen = np.zeros(len(self.contents), np.bool_)


def _samples(sets: Mapping[str, Shards]) -> Iterator[tuple[str, Shards, int]]:
    for name, shards in sets.items():
        for position in range(len(shards)):
            yield name, shards, position


def _sums(words: npt.NDArray[np.uint64], starts: Int64) -> npt.NDArray[np.uint64]:
    """The sums, modulo 2^64, of the first halves of each sample's digests. `words` are both halves
    of all digests, `starts` [samples] the first member of each sample."""
    found: npt.NDArray[np.uint64] = np.add.reduceat(words[::2], starts)
    return found


def _compare(
    wanted: _Wanted, shards: Shards, number: int, first: int, chosen: Int64
) -> list[tuple[str, SampleRef]]:
    """Compare the training samples at positions `chosen` of a shard, the first of which is at
    position `first` of the view. Returns the validation samples they are, and marks what else they
    contain as seen."""
    blocks = list(shards.shard_set.blocks(number))
    counts = np.concatenate([np.diff(block.member_starts) for block in blocks])
    digests = np.frombuffer(b"".join(block.digests for block in blocks), "S16")
    sums = _sums(digests.view("<u8"), np.cumsum(counts) - counts)
    starts = [block.first for block in blocks]
    same: list[tuple[str, SampleRef]] = []
    others = np.zeros(len(counts), np.bool_)
    others[chosen] = True
    for at in np.flatnonzero(_places(wanted.sums, sums[chosen])[1]).tolist():
        # The key is looked at first: a data set may hold one conversation a million times.
        block = blocks[bisect.bisect_right(starts, chosen[at]) - 1]
        if block.key(int(chosen[at]) - block.first) in wanted.keys:
            found = wanted.refs.get(shards.ref(first + at).digest, ())
            same += found
            others[chosen[at]] = not found
    places, matches = _places(wanted.contents, digests)
    wanted.seen[places[matches & np.repeat(others, counts)]] = True
    return same


def _places(
    known: npt.NDArray[np.uint64] | Digests, values: npt.NDArray[np.uint64] | Digests
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Where each value is in `known`, which is sorted and not empty, and whether it is there."""
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return places, known[places] == values
