"""A view of chosen samples of another view, such as those with images, in that view's order.

Slices, references, reading and token counts work as for any view. It holds an integer per sample,
and has a description in place of a spec: no spec names single samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.reading.shard_set import Members
from ocrdata.reading.view import Shards
from ocrdata.sample import Sample
from ocrdata.shards.arrow import Int64
from ocrdata.storage.sealed import canonical, digest_of


class SelectedShards(Shards):
    """The samples at `chosen` positions of a view, ascending; `what` describes them."""

    def __init__(self, view: Shards, chosen: npt.ArrayLike, what: str) -> None:
        # Four bytes a sample: no shard set we know of has 2^31 samples, but one may.
        kind = np.int32 if len(view) < 1 << 31 else np.int64
        self._view, self._chosen, self._what = view, np.asarray(chosen, kind), what
        super().__init__(view.shard_set, range(0))

    @property
    def spec(self) -> str:
        """A description: the spec of the whole view, and how many of its samples are chosen."""
        return f"{self._view.spec}: {len(self):,} of {len(self._view):,} samples, {self._what}"

    @property
    def digest(self) -> str:
        """Identifies the samples and their order: of the whole view, and the chosen positions."""
        chosen = xxhash.xxh3_128_hexdigest(self._chosen.astype("<i8").data)
        return digest_of(canonical([self._view.digest, chosen]))

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Shards: ...
    def __getitem__(self, at: int | slice) -> Sample | Shards:
        if isinstance(at, slice):
            if at.step is not None and at.step < 0:
                raise ValueError(f"{self.spec}: a selection cannot be reversed")
            return SelectedShards(self._view, self._chosen[at], self._what)
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Sample]:
        return (self[at] for at in range(len(self)))

    def iter_members(self) -> Iterator[Members]:
        """`members` of every sample in order."""
        return (self.members(at) for at in range(len(self)))

    def iter_views(self) -> Iterator[dict[str, memoryview[int]]]:
        """`members` of every sample in order, as read-only views."""
        for members in self.iter_members():
            yield {name: memoryview(data) for name, data in members.items()}

    def _place(self, position: int) -> int | None:
        in_view = self._view._place(position)
        if in_view is None:
            return None
        place = int(np.searchsorted(self._chosen, in_view))
        found = place < len(self) and int(self._chosen[place]) == in_view
        return place if found else None

    def stretches(self) -> Iterator[tuple[int, int, range | Int64]]:
        """See `Shards.stretches`."""
        for first, number, locals_ in self._view.stretches():
            start, stop = np.searchsorted(self._chosen, (first, first + len(locals_)))
            if start < stop:
                yield int(start), number, np.asarray(locals_)[self._chosen[start:stop] - first]

    def _locate(self, at: int) -> tuple[int, int]:
        try:
            chosen = int(self._chosen[at])
        except IndexError:
            raise IndexError(
                f"{self.spec}: position {at} is out of range of {len(self):,} samples"
            ) from None
        return self._view._locate(chosen)
