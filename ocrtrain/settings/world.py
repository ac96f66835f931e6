"""The processes that train one run together, its ranks: one per GPU, started by torchrun.

A `World` is made once, when a run starts, and handed down. Every rank trains on its stretch of the
rows of each global batch, so that the batch of a step is the same for any world size; rank 0 alone
writes and prints. What the ranks have to agree on is exchanged as bytes (JSON, no pickle) between
their CPUs. A run of a single process needs none of this and imports nothing for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ocrdata.errors import OcrError, TrainError, UsageError, UsageErrors
from ocrdata.planning.ranks import rank_rows
from ocrtrain.settings.config import Config

Result = TypeVar("Result")

PATIENCE_S = 10.0
"""Seconds in which the first process of a machine finds what another has found too."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells the processes that it starts."""


class PeerError(OcrError):
    """Another rank failed, and rank 0 says why: this one has nothing to add, but ends with the same
    exit status."""

    def __init__(self, exit_status: int = 1) -> None:
        super().__init__()
        self.exit_status = exit_status

    is_agreed = True

    @property
    def messages(self) -> tuple[str, ...]:
        """None: the reason is told once."""
        return ()


@dataclass(frozen=True)
class World:
    """This process among the `size` ranks of a run: its number, and its device as torch names it.

    `local_rank` is its number among the `local_size` ranks of its machine, `restarts` how often
    torchrun has restarted them all, `is_distributed` whether torchrun started it.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    is_distributed: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def rows(self, batch: int) -> range:
        """The rows of a global batch that this rank trains on. Raises UsageError if they cannot be
        split evenly."""
        return rank_rows(batch, self.rank, self.size)

    def rows_per_pass(self, config: Config) -> int:
        """Rows of a forward pass on each rank: --micro-batch, at most all rows of the rank. Raises
        UsageError if the rows cannot be split evenly, across the ranks and into passes."""
        rows = len(self.rows(config.batch))
        most = min(config.micro_batch or rows, rows)
        if rows % most:
            raise UsageError(
                f"--micro-batch {config.micro_batch}: the {rows} rows of a rank must be a multiple"
            )
        return most

    def config(self, config: Config) -> Config:
        """The config as this world trains it: with the rows of a forward pass on each rank."""
        if self.size == 1:
            return config
        return replace(config, micro_batch=self.rows_per_pass(config))

    def exchange(self, data: bytes) -> list[bytes]:
        """What every rank passes here, in their order. All ranks must call it."""
        if self.size == 1:
            return [data]
        import torch
        import torch.distributed as dist

        own = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(1, *(int(size) for size in sizes))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(own)] = own
        found = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [one[: int(size)].numpy().tobytes() for one, size in zip(found, sizes, strict=True)]

    def exchange_json(self, value: Any) -> list[Any]:
        """`exchange` of a JSON value."""
        if self.size == 1:
            return [value]
        return [json.loads(data) for data in self.exchange(json.dumps(value).encode())]

    def any(self, flag: bool) -> bool:
        """Whether it is true on any rank. All ranks must call it."""
        return any(self.exchange_json(flag))

    def together(self, work: Callable[[], Result]) -> Result:
        """What `work` returns on this rank; if it fails on one, it fails on all, before any goes
        on. Rank 0 raises the reason, the others PeerError. All ranks must call it."""
        return self.gather(work, lambda _: None)[0]

    def gather(
        self, work: Callable[[], Result], told: Callable[[Result], Any]
    ) -> tuple[Result, list[Any]]:
        """`together`, and what every rank tells of its result, a JSON value each."""
        if self.size == 1:
            result = work()
            return result, [told(result)]
        fault = None
        try:
            result = work()
            value = {"told": told(result)}
        except OcrError as exc:
            fault = exc
            value = {"status": exc.exit_status, "lines": list(exc.messages)}
        values = self.exchange_json(value)
        self._raise_first(values, fault)
        return result, [value["told"] for value in values]

    def one_first(self, work: Callable[[], Result]) -> Result:
        """`together`, but one rank of each machine is done before the others begin: they find the
        files that it made."""
        if self.local_rank == 0:
            result = self.together(work)
        else:
            self.together(lambda: None)
        if self.size > 1:
            result = self.together(work if self.local_rank else lambda: result)
        return result

    def on_first(self, work: Callable[[], Result]) -> Result | None:
        """What `work` returns on rank 0, which alone does it; None on the others. If it fails, it
        fails on all. All ranks must call it."""
        return self.together(lambda: work() if self.is_first else None)

    def on_first_json(self, work: Callable[[], Any]) -> Any:
        """The JSON value that `work` returns on rank 0, on every rank. All ranks must call it."""
        return self.gather(lambda: work() if self.is_first else None, lambda value: value)[1][0]

    def agreed(self, fault: OcrError) -> OcrError:
        """An error that every rank raises at the same point, for a reason that all know."""
        fault.is_agreed = True
        return fault

    def _raise_first(self, values: Sequence[Mapping[str, Any]], own: OcrError | None) -> None:
        """Raise what the first rank that failed says; nothing if none did."""
        failed = next(((rank, one) for rank, one in enumerate(values) if "lines" in one), None)
        if failed is None:
            return
        rank, one = failed
        if self.is_first and own is not None:
            raise self.agreed(own)
        if not self.is_first or not one["lines"]:
            raise PeerError(one["status"]) from own
        lines = [f"rank {rank} of {self.size}: {line}" for line in one["lines"]]
        if one["status"] == 1:
            raise self.agreed(TrainError("\n".join(lines)))
        raise self.agreed(UsageErrors(*lines) if len(lines) > 1 else UsageError(lines[0]))


@contextmanager
def said_once(world: World) -> Iterator[None]:
    """What is wrong before the ranks are connected is told by the first process of each machine.

    The others wait: torchrun ends them once the first has failed, and would end that one before it
    has said why if they were faster. What the first does not find they tell after all.
    """
    try:
        yield
    except OcrError:
        if world.local_rank:
            time.sleep(PATIENCE_S)
        raise


def world_of(variables: Mapping[str, str]) -> World:
    """The world that torchrun describes in the environment; a single process without torchrun.

    Raises UsageError if the variables are incomplete or malformed: training alone by mistake would
    go unnoticed.
    """
    given = {name: variables[name] for name in VARIABLES if name in variables}
    started = {"RANK", "WORLD_SIZE"} & set(given)
    if not started:
        return World()
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise UsageError(
            f"{' and '.join(sorted(started))} set in the environment, but {', '.join(missing)} "
            "missing: start with torchrun, or unset them to train in a single process"
        )
    try:
        rank, size, local_rank = (int(given[name]) for name in VARIABLES[:3])
        local_size, restarts = (
            int(variables.get(name, default))
            for name, default in (("LOCAL_WORLD_SIZE", 1), ("TORCHELASTIC_RESTART_COUNT", 0))
        )
    except ValueError as exc:
        raise UsageError(f"environment: RANK, WORLD_SIZE and LOCAL_RANK: {exc}") from exc
    if not 0 <= rank < size or local_rank < 0:
        raise UsageError(f"environment: RANK {rank} must be 0 to WORLD_SIZE {size} - 1")
    return World(
        rank,
        size,
        local_rank=local_rank,
        local_size=local_size,
        restarts=restarts,
        is_distributed=True,
    )
