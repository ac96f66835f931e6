"""Draws: the endless sequence of a source's samples, epoch after epoch, each in its own order.

Owner of the way from the number of a draw to a position in the source's view. A draw is a function
of its number: nothing is stored but the positions that are left where samples were dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ocrdata.order import Order

CHUNK = 1 << 16
"""Draws that are looked at together: what numpy makes on the way stays in a core's cache."""

Positions = npt.NDArray[np.int64]


class Draws:
    """Draw number d of a source is position `order(d // size)[d % size]` of its view.

    `kept` are the positions that are drawn from, rising; None for all `size` of the view. Safe to
    share between threads.
    """

    def __init__(
        self, name: str, size: int, *, seed: int, kept: npt.NDArray[np.int32] | None = None
    ) -> None:
        self.name, self.seed = name, seed
        self.size = size if kept is None else len(kept)
        self._kept = kept
        self._orders: dict[int, Order] = {}

    def many(self, start: int, stop: int) -> Positions:
        """The positions of draws [start, stop). Shape: [stop - start]."""
        parts = []
        while start < stop:
            epoch, within = divmod(start, self.size)
            count = min(stop - start, self.size - within)
            places = np.arange(within, within + count, dtype=np.uint64)
            parts.append(self._order(epoch).many(places))
            start += count
        if not parts:
            return np.empty(0, np.int64)
        drawn = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return drawn if self._kept is None else self._kept[drawn].astype(np.int64)

    def chunks(self, start: int, stop: int) -> Iterator[Positions]:
        """`many`, in pieces."""
        for at in range(start, stop, CHUNK):
            yield self.many(at, min(stop, at + CHUNK))

    def _order(self, epoch: int) -> Order:
        found = self._orders.get(epoch)
        if found is None:
            found = Order(self.size, seed=self.seed, epoch=epoch, source=self.name)
            # Cheap to make again. Replaced whole: other threads never meet a half-made state.
            others = self._orders if len(self._orders) < 4 else {}
            self._orders = others | {epoch: found}
        return found
