"""Items made ahead of whoever takes them, in a thread of their own.

Owner of that thread: how far it goes ahead, and that it ends with its consumer, by whatever way
that one ends. It knows nothing of what the items are, and never makes them in another order.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

THREAD = "ocrdata-ahead"
"""The name of each such thread."""


def ahead(items: Generator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, and the same error after the same item.

    At most `depth` items are there at any time: the one taken last, which counts until the next
    is asked for, and those made ahead. The thread is started when the first is asked for and ends
    after the last one, or when this generator is closed or collected, once what it is at is done.
    """
    maker = _Maker(items, depth)
    try:
        maker.start()
    except RuntimeError:  # no more threads, or the interpreter is ending
        yield from items
        return
    try:
        # The box gives its item away, so that nothing here holds it while the next is made.
        while box := maker.made.get():
            yield box.pop()
            maker.wanted.put(True)
    finally:
        maker.end()
    if maker.error is not None:
        raise maker.error


class _Maker(threading.Thread, Generic[T]):
    """Takes items for as long as they are wanted; knows nothing of the generator that wants them,
    which may be collected at any time."""

    def __init__(self, items: Generator[T], depth: int) -> None:
        # As a daemon it does not keep the interpreter from ending; `_end_all` ends it then.
        super().__init__(name=THREAD, daemon=True)
        self.error: BaseException | None = None
        self.made: SimpleQueue[list[T]] = SimpleQueue()
        self.wanted: SimpleQueue[bool] = SimpleQueue()
        self._items = items
        self._ended = False
        for _ in range(depth):
            self.wanted.put(True)

    def end(self) -> None:
        """Make no more. Does not wait: a collector may call it anywhere, in this very thread or
        in one that holds a lock which the item being made needs."""
        self._ended = True
        self.wanted.put(False)

    def run(self) -> None:
        """Boxes of one item each, then an empty one."""
        try:
            while self.wanted.get() and not self._ended:
                box = list(islice(self._items, 1))
                if not box:
                    return
                self.made.put(box)
                del box
            # Seen only by a daemon thread that outlives the main one: this is not the items' end.
            self.error = RuntimeError("the interpreter is ending")
        except BaseException as exc:
            self.error = exc
        finally:
            self._items.close()
            self.made.put([])


@atexit.register
def _end_all() -> None:
    # A thread that is stopped inside foreign code while the interpreter is taken down may crash it.
    makers = [thread for thread in threading.enumerate() if isinstance(thread, _Maker)]
    for maker in makers:
        maker.end()
    for maker in makers:
        maker.join()
