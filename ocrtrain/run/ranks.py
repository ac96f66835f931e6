"""Opens and closes the world of a run: torch's process group, and a watch over the other ranks.

A rank that is killed would leave the others waiting for it in a collective operation, on a GPU for
ever. So every rank has a thread that waits for a message of the next one: that it ended well, that
it failed and said why, or that some rank is lost. If the connection breaks instead, that rank was
killed. In all cases but the first this process ends within seconds, and passes the message on.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TextIO

import torch

from ocrdata.errors import OcrError, UsageError
from ocrtrain.model.device import resolve_device
from ocrtrain.settings.world import PeerError, World

PATIENCE = timedelta(hours=6)
"""For one rank that does what the others wait for, such as counting the tokens of a large set. A
rank that is lost is noticed by the watch, at once."""
FOREVER = timedelta(days=365)
GRACE_S = 10.0
"""Seconds in which a rank must end by itself after another failed."""

ENDED, FAILED, LOST = range(3)


def device_of_rank(name: str, world: World) -> torch.device:
    """The device of a rank, its own GPU of those of its machine; `name` is --device. Touches none.

    Raises UsageError for a device this machine lacks.
    """
    device = resolve_device(name)
    if device.type != "cuda" or not world.is_distributed:
        return device
    if device.index is not None and world.local_size > 1:
        raise UsageError(
            f"--device {name} is one GPU, but {world.local_size} processes were started here; use "
            "--device cuda"
        )
    # Compared by number, not by this rank's own GPU: all processes must find that one is missing.
    if device.index is None and world.local_size > torch.cuda.device_count():
        raise UsageError(
            f"{world.local_size} processes were started, but this machine has "
            f"{torch.cuda.device_count()} CUDA devices; start one for each GPU "
            "(torchrun --nproc_per_node)"
        )
    return torch.device("cuda", world.local_rank if device.index is None else device.index)


@contextmanager
def open_world(world: World, device: torch.device) -> Iterator[World]:
    """The world on its device, with its process group, if torchrun started it.

    An error that not all ranks have agreed on ends the others too.
    """
    world = replace(world, device=str(device))
    if not world.is_distributed:
        yield world
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # torchrun's store outlives a restart, with the addresses of the processes before it.
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group(
        backend,
        store=PrefixStore(f"restart_{world.restarts}", store),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    watch = Watch(world)
    try:
        yield world
    except OcrError:
        watch.close(FAILED)
        raise
    except RuntimeError as exc:
        # So end collective operations, if another rank is gone. Anything else is a bug.
        if not watch.explains():
            raise
        watch.close(FAILED)
        raise PeerError from exc
    watch.close(ENDED)
    dist.destroy_process_group()


class Watch:
    """Waits in a thread for what becomes of the next rank, and tells the one before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heard, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if world.size == 1:
            return
        import torch.distributed as dist

        # In a group of its own, so that it does not wait for the operations of the training.
        self._group = dist.new_group(backend="gloo", timeout=FOREVER)
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def close(self, outcome: int) -> None:
        """Tell the rank before how this one ended, and wait for the next one."""
        if self._thread is None:
            return
        self._closing.set()
        self._tell(outcome, self._world.rank)
        self._thread.join(None if outcome == ENDED else GRACE_S)

    def explains(self) -> bool:
        """Whether another rank failed, so that an operation with it cannot succeed. If one was
        lost, the watch says so and ends the process instead."""
        return self._heard.wait(GRACE_S if self._thread else 0.0)

    def _tell(self, outcome: int, rank: int) -> None:
        import torch.distributed as dist

        before = (self._world.rank - 1) % self._world.size
        with contextlib.suppress(RuntimeError):  # it may be gone already
            dist.send(torch.tensor([outcome, rank]), before, group=self._group)

    def _watch(self) -> None:
        import torch.distributed as dist

        world = self._world
        following = (world.rank + 1) % world.size
        message = torch.tensor([LOST, following])
        with contextlib.suppress(RuntimeError):  # the connection broke: the message stays
            dist.recv(message, following, group=self._group)
        outcome, rank = message.tolist()
        if outcome == LOST and not self._closing.is_set():
            print(
                f"error: rank {rank} of {world.size} is lost: it was killed, ran out of memory or "
                f"broke off; rank {world.rank} ends; go on from the newest checkpoint with "
                "--resume",
                file=sys.stderr,
                flush=True,
            )
            self._tell(outcome, rank)
            os._exit(1)
        self._heard.set()
        # It told its reason: this rank is about to learn of it, unless it hangs.
        if outcome != ENDED and not self._closing.wait(GRACE_S):
            self._tell(outcome, rank)
            os._exit(1)


@contextmanager
def silent_unless_first(world: World) -> Iterator[None]:
    """Rank 0 alone prints: what others print is dropped, and they show no bars. Their errors are
    still printed."""
    if world.is_first:
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(_NoTerminal(sys.stderr)),
    ):
        yield


class _NoTerminal(io.TextIOBase):
    """A stream that passes text on, but is no terminal: bars are shown on terminals alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()
