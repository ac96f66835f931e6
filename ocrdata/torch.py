"""The data plane for any trainer of torch's: a Dataset over shards, a plan as a BatchSampler, and a
loader whose whole state is its next step.

In: shard specs, a plan. Out: samples, rows or batches. It alone in `ocrdata` imports torch. Besides
what it reads and plans with, it knows `storage` for one thing: it takes the cache of this process
to worker processes. docs/other_trainers.md shows it in a plain loop, in Hugging Face's Trainer and
in Lightning.

The global batch of a step is a function of plan and step. A rank takes its stretch of the rows, and
nobody may share them out a second time: what trainers do to samplers by default is refused.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import Any, Generic, Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ocrdata.errors import OcrError, ShardError, UsageError
from ocrdata.planning.choices import Weight
from ocrdata.planning.fetch_ahead import FetchAhead
from ocrdata.planning.plan import Plan, PlanSettings
from ocrdata.planning.ranks import rank_rows
from ocrdata.planning.views import lengths_of_view, plan_views, refuse_too_long, refuse_unfit
from ocrdata.reading.prefetch import Assembly, Prefetcher
from ocrdata.reading.samples import decode_images, tokenize_sample
from ocrdata.reading.view import Shards, open_shards
from ocrdata.storage.fetching import cache_in_use, use_cache
from ocrdata.tokens.padding import TokenPair, pad_rows, with_targets
from ocrdata.tokens.tokenizer import Tokenizer

Item = dict[str, Any]
"""A sample: see `ShardDataset`."""

Row = int | tuple[int, ...]
"""What a sampler asks for: one sample, or the samples packed in a row."""

Spec = str | Sequence[str]

Batch = TypeVar("Batch")

STATE_VERSION = 1


@dataclass(frozen=True)
class TokenOptions:
    """How samples become token ids: at most `seq_len`, cut at a turn; each image takes
    `image_slots` positions, which hold the id of <|image|>: a number, or numbers by source."""

    tokenizer: Tokenizer
    seq_len: int
    image_slots: int | Mapping[str, int]

    def slots(self, source: str) -> int:
        """Positions of an image of a source. Raises UsageError if none are given for it."""
        if isinstance(self.image_slots, int):
            return self.image_slots
        if source not in self.image_slots:
            raise UsageError(
                f"image_slots are of {', '.join(self.image_slots) or 'no source'}, but not of "
                f"{source}: give the positions that its images take (1 if it has none)"
            )
        return self.image_slots[source]


class ShardDataset(Dataset[Any]):
    """The samples of one or more shard specs, at random, each verified when it is read.

    `sources` is a spec, several specs that are one source, or specs by the name of their source;
    the samples are numbered source after source. `dataset[n]` is a dict of
    - `messages` and `meta`, as in the shard (docs/formats.md), `key` and `source`;
    - `images`, in the order of their places in the messages: uint8 arrays [H, W, 3] ("array"),
      PIL images ("pil"), both upright, RGB, on white; or the bytes of their files ("bytes");
    - with `tokens` also `input_ids` and `targets`, int64 [T]: the next id where it is supervised,
      else -100. Images that were cut off with their turn are left out.
    `dataset[(n, m)]` is a list of them, a packed row.

    It can be pickled, and can be used in forked processes: each opens the shards for itself, and
    refuses others than were there at first. A forked process cannot read from URLs, if this one
    has. Raises SpecError for a spec that matches nothing, and ShardError naming the sample.
    """

    def __init__(
        self,
        sources: Spec | Mapping[str, Spec],
        *,
        images: Literal["array", "pil", "bytes"] = "array",
        tokens: TokenOptions | None = None,
    ) -> None:
        if images not in ("array", "pil", "bytes"):
            raise UsageError(f"images {images!r}: must be one of array, pil, bytes")
        self.images, self.tokens = images, tokens
        self._specs = dict(sources) if isinstance(sources, Mapping) else {"": sources}
        self._views = self._open()
        if not isinstance(sources, Mapping):
            [view] = self._views.values()
            self._specs, self._views = {view.source_name: sources}, {view.source_name: view}
        self._names = tuple(self._specs)
        for name, view in self._views.items():
            if not len(view):
                raise UsageError(
                    f"source {name} ({view.spec}) holds no samples; give another slice"
                )
        self._digests = {name: view.digest for name, view in self._views.items()}
        sizes = (len(view) for view in self._views.values())
        self.starts = tuple(itertools.accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Row) -> Item | list[Item]:
        if isinstance(index, tuple):
            return [self.sample(one) for one in index]
        return self.sample(index)

    def __getitems__(self, indices: Sequence[Row]) -> list[Item | list[Item]]:
        """Several at once, as DataLoader asks; those at URLs are requested together."""
        if any(view.shard_set.is_remote for view in self.views.values()):
            for row in indices:
                for index in (row,) if isinstance(row, int) else row:
                    view, position, _ = self._place(index)
                    view.announce([position])
        return [self[index] for index in indices]

    def sample(self, index: int) -> Item:
        """One sample. Raises IndexError outside the data set."""
        view, position, name = self._place(index)
        sample = view[position]
        images: list[Any]
        if self.images == "bytes":
            images = list(sample.images)
        else:
            images = decode_images(view, position, sample, mode=None)
        item: Item = {
            "messages": sample.messages,
            "images": images,
            "source": name,
            "key": sample.key,
            "meta": sample.meta,
        }
        if self.tokens is not None:
            tokens = self.tokens
            rendered = tokenize_sample(
                sample,
                view.ref(position),
                tokens.tokenizer,
                slots=[tokens.slots(name)] * len(images),
                seq_len=tokens.seq_len,
            )
            pair = with_targets(rendered)
            item["input_ids"] = torch.from_numpy(pair.ids).long()
            item["targets"] = torch.from_numpy(pair.targets)
            del images[len(rendered.image_starts) :]
        if self.images == "pil":
            item["images"] = [Image.fromarray(image) for image in images]
        return item

    def plan(
        self, settings: PlanSettings, weights: Mapping[str, Weight | int] | None = None
    ) -> Plan:
        """The batches of a run over these sources. `weights` are relative to each other; by default
        each sample counts the same. Missing token counts are computed first, if rows are packed or
        weighed by tokens, or the settings say what becomes of samples that are too long.

        Raises UsageError for settings that cannot be planned, or that do not fit the data set.
        """
        views, tokens = self.views, self.tokens
        given = {name: len(view) for name, view in views.items()} if weights is None else weights
        if set(given) != set(views):
            raise UsageError(
                f"weights of {', '.join(given) or 'nothing'}, but the sources are "
                f"{', '.join(views)}: give each of them a weight"
            )
        lengths = []
        if settings.needs_lengths or settings.too_long == "error":
            if tokens is None or settings.seq_len != tokens.seq_len:
                raise UsageError(
                    f"the plan depends on token ids and seq_len is {settings.seq_len}; give the "
                    "data set its tokens, with the same seq_len"
                )
            for name, view in views.items():
                found = lengths_of_view(
                    view, tokens.tokenizer, slots=tokens.slots(name), seq_len=tokens.seq_len
                )
                refuse_unfit(name, view, found, tokens.tokenizer)
                if settings.too_long == "error":
                    refuse_too_long(name, view, found, settings.seq_len)
                lengths.append(found)
        relative = {
            name: Fraction(weight) if isinstance(weight, int) else weight
            for name, weight in given.items()
        }
        return plan_views(views, relative, settings, lengths=lengths)

    @property
    def views(self) -> dict[str, Shards]:
        """The opened sources by name. Each process opens its own."""
        if self._process != os.getpid():
            if any(view.shard_set.is_remote for view in self._views.values()):
                raise UsageError(
                    "a forked process cannot read from URLs after its parent has: start the "
                    "workers of DataLoader with multiprocessing_context='forkserver'"
                )
            self._reopen()
        return self._views

    def _open(self) -> dict[str, Shards]:
        self._process = os.getpid()
        return {name: open_shards(spec) for name, spec in self._specs.items()}

    def _reopen(self) -> None:
        self._views = self._open()
        for name, view in self._views.items():
            if view.digest != self._digests[name]:
                raise ShardError(
                    view.spec,
                    f"source {name} holds other samples than when the data set was opened",
                    remedy="the shards were replaced meanwhile; restore them, or start again",
                )

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "_views"}
        return kept | {"cache": cache_in_use()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cache = state.pop("cache")
        if cache is not None and cache_in_use() is None:
            use_cache(cache)
        vars(self).update(state)
        self._reopen()

    def _place(self, index: int) -> tuple[Shards, int, str]:
        """The view that holds a sample, its position there, and the name of its source."""
        size = self.starts[-1]
        if not -size <= index < size:
            raise IndexError(f"sample {index} is out of range of {size:,} samples")
        index %= size
        number = bisect.bisect_right(self.starts, index) - 1
        name = self._names[number]
        return self.views[name], index - self.starts[number], name


class PlanBatchSampler(Sampler[list[Row]]):
    """The rows of a plan, step by step: `DataLoader(dataset, batch_sampler=...)`.

    A rank of `world_size` gets its stretch of each global batch, in `accumulate` parts one after
    the other, and begins at `start_step`. Without `rank` and `world_size` they are those of
    torch.distributed when iteration begins, else of torchrun's environment, else 0 of 1; ranks that
    share a model (tensor parallelism) must be given the same. A row is the number of a sample, or
    of a packed plan a tuple of numbers. Its iterators know the protocol of torchdata's
    StatefulDataLoader.

    Raises UsageError for a plan of other sources, and for a batch that cannot be split evenly.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        plan: Plan,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        accumulate: int = 1,
        start_step: int = 0,
    ) -> None:
        self.dataset, self.plan, self.accumulate = dataset, plan, accumulate
        own = [(name, len(view), view.digest) for name, view in dataset.views.items()]
        planned = [(one.name, one.size, one.digest) for one in plan.sources]
        if own != planned:
            raise UsageError(
                f"the plan is of {_shown(planned)}, the data set of {_shown(own)}: make it with "
                "the data set's own plan()"
            )
        if (rank is None) != (world_size is None):
            raise UsageError("give both rank and world_size, or neither")
        self._given = None if rank is None or world_size is None else (rank, world_size)
        if not 0 <= start_step <= plan.steps:
            raise UsageError(f"start_step {start_step}: the plan has {plan.steps:,} steps")
        self.start_step = start_step
        _ = self.part  # a mistake is told at once

    @property
    def part(self) -> range:
        """The rows of a global batch that are this rank's."""
        rank, world_size = self._given or _ranks()
        running = _ranks()[1]
        if running > 1 and running % world_size:
            raise UsageError(
                f"world_size {world_size} does not fit {running} running processes: it must "
                "divide their number"
            )
        rows = rank_rows(self.plan.batch, rank, world_size)
        if self.accumulate < 1 or len(rows) % self.accumulate:
            raise UsageError(
                f"accumulate {self.accumulate}: {len(rows)} rows of each rank cannot be split "
                "evenly into as many micro-batches"
            )
        return rows

    @property
    def batch_size(self) -> int:
        """Rows of each (micro-)batch, for a single process only.

        Raises UsageError where there are several: who asks would split the batches again.
        """
        if max((self._given or _ranks())[1], _ranks()[1]) > 1:
            raise UsageError(
                "these batches are one rank's already and would be shared out again: do not "
                "pass their loader through accelerate's prepare(), and set Lightning's "
                "Trainer(use_distributed_sampler=False); or use PlanLoader, which both leave alone"
            )
        return len(self.part) // self.accumulate

    drop_last = False

    def rows(self, number: int, part: range) -> list[Row]:
        """The rows of batch `number`, counted over all steps and their micro-batches."""
        step, micro = divmod(number, self.accumulate)
        each = len(part) // self.accumulate
        planned = self.plan.rows(step, part[micro * each : (micro + 1) * each])
        starts, packed = self.dataset.starts, bool(self.plan.settings.pack_window)
        rows = [tuple(starts[one.source] + one.position for one in row) for row in planned]
        return list(rows) if packed else [row[0] for row in rows]

    def __iter__(self) -> PlanIterator:
        return PlanIterator(self, self.start_step * self.accumulate)

    def __len__(self) -> int:
        return (self.plan.steps - self.start_step) * self.accumulate

    @cached_property
    def _digest(self) -> str:
        return self.plan.digest

    def state(self, number: int) -> dict[str, Any]:
        """The state of a loader whose next batch is `number`: a few integers, the same on all
        ranks, and the digest of the plan."""
        step, micro = divmod(number, self.accumulate)
        return {
            "version": STATE_VERSION,
            "plan": self._digest,
            "step": step,
            "micro": micro,
            "accumulate": self.accumulate,
        }

    def number(self, state: Mapping[str, Any]) -> int:
        """The next batch in a state, which may be of other workers and ranks. Raises UsageError for
        one of another plan, and for the middle of a step that is now split otherwise."""
        wanted = self.state(0)
        if set(state) != set(wanted) or state["version"] != STATE_VERSION:
            raise UsageError(f"not a loader's state: {dict(state)!r:.200}")
        if state["plan"] != self._digest:
            raise UsageError(
                f"the state is of another plan ({state['plan']}, not {self._digest}): go on with "
                "the same sources, weights, settings and tokenizer"
            )
        step, micro = state["step"], state["micro"]
        if micro and state["accumulate"] != self.accumulate:
            raise UsageError(
                f"the state is within step {step}, split into {state['accumulate']} micro-batches, "
                f"not {self.accumulate}: go on with the same accumulate, or from a whole step"
            )
        if not 0 <= step * self.accumulate + micro <= self.plan.steps * self.accumulate:
            raise UsageError(f"step {step} is outside a plan of {self.plan.steps:,} steps")
        return int(step) * self.accumulate + int(micro)


class PlanIterator(Iterator[list[Row]]):
    """The batches of a `PlanBatchSampler` from `number` on, with `state_dict` and
    `load_state_dict`."""

    def __init__(self, sampler: PlanBatchSampler, number: int) -> None:
        self._sampler, self._part, self._number = sampler, sampler.part, number

    def __next__(self) -> list[Row]:
        if self._number >= self._sampler.plan.steps * self._sampler.accumulate:
            raise StopIteration
        rows = self._sampler.rows(self._number, self._part)
        self._number += 1
        return rows

    def state_dict(self) -> dict[str, Any]:
        """See `PlanBatchSampler.state`."""
        return self._sampler.state(self._number)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises like `PlanBatchSampler.number`."""
        self._number = self._sampler.number(state)


class PlanLoader(Generic[Batch]):
    """The batches of a plan, prepared ahead, from the next step on: `for batch in loader`.

    `collate` makes a batch of a list of rows: of items, or of lists of items if rows are packed.
    Batches are made by `threads` of this process, or by worker `processes` (started by forkserver),
    for a `collate` that keeps the interpreter busy, such as most processors. The state is the next
    step: it is exact for any other number of threads, processes and ranks.

    A plan is a whole run, and each batch is given out once: iterating again goes on where the last
    iteration stopped, and after the end it raises UsageError.
    """

    def __init__(
        self,
        sampler: PlanBatchSampler,
        collate: Callable[[list[Any]], Batch],
        *,
        threads: int = 2,
        processes: int = 0,
    ) -> None:
        if threads < 0 or processes < 0:
            raise UsageError(f"threads ({threads}) and processes ({processes}) must be at least 0")
        self.batches, self.collate = sampler, collate
        self.threads, self.processes = threads, processes
        self._number = sampler.start_step * sampler.accumulate

    def __len__(self) -> int:
        """Batches of the whole plan on one rank."""
        return self.batches.plan.steps * self.batches.accumulate

    def __iter__(self) -> Generator[Batch, None, None]:
        if self._number >= len(self):
            raise UsageError(
                f"all {self.batches.plan.steps:,} steps of the plan were given out: a plan is a "
                "whole run, for one epoch of the trainer; plan more steps, or seek(0)"
            )
        return self._iterate(self.batches.part)

    @property
    def step(self) -> int:
        """The step of the next batch."""
        return self._number // self.batches.accumulate

    def seek(self, step: int) -> None:
        """Go on from the beginning of a step."""
        if not 0 <= step <= self.batches.plan.steps:
            raise UsageError(f"step {step}: the plan has {self.batches.plan.steps:,} steps")
        self._number = step * self.batches.accumulate

    def state_dict(self) -> dict[str, Any]:
        """See `PlanBatchSampler.state`."""
        return self.batches.state(self._number)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises like `PlanBatchSampler.number`."""
        self._number = self.batches.number(state)

    @property
    def dataset(self) -> ShardDataset:
        """Raises AttributeError: who asks would skip batches in another loader made of it, and
        leave the state of this one where it was."""
        raise AttributeError(
            "a PlanLoader is no DataLoader and is not fast-forwarded: load its state, and set "
            "Hugging Face's TrainingArguments(ignore_data_skip=True)"
        )

    def _iterate(self, part: range) -> Generator[Batch, None, None]:
        number = self._number
        making = self._in_processes(part) if self.processes else self._in_threads(part)
        with closing(making):
            for batch in making:
                if self._number != number:
                    raise UsageError(
                        f"batch {number:,} is not the next one: the loader was moved to batch "
                        f"{self._number:,} by seek, load_state_dict or another iteration"
                    )
                number = self._number = number + 1
                yield batch

    def _in_threads(self, part: range) -> Generator[Batch, None, None]:
        sampler, dataset = self.batches, self.batches.dataset
        views = list(dataset.views.values())
        ahead = FetchAhead(sampler.plan, views, part=part, start=self.step)

        def split(number: int) -> Assembly[Item, Batch]:
            step, micro = divmod(number, sampler.accumulate)
            ahead.begin(step)
            rows = sampler.rows(number, part)

            def join(items: list[Item]) -> Batch:
                left = iter(items)
                batch = self.collate(
                    [next(left) if isinstance(row, int) else [next(left) for _ in row]
                     for row in rows]
                )  # fmt: skip
                if micro == sampler.accumulate - 1:
                    ahead.end(step)
                return batch

            numbers = [one for row in rows for one in ((row,) if isinstance(row, int) else row)]
            return Assembly([partial(dataset.sample, one) for one in numbers], join)

        with (
            closing(ahead),
            Prefetcher(split, self._number, stop=len(self), workers=self.threads) as made,
        ):
            yield from made

    def _in_processes(self, part: range) -> Generator[Batch, None, None]:
        coming = (self.batches.rows(number, part) for number in range(self._number, len(self)))
        loader = DataLoader(
            _Made(self.batches.dataset, self.collate),
            sampler=coming,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.processes,
            multiprocessing_context="forkserver",
        )
        for made in loader:
            if isinstance(made, OcrError):
                raise made
            yield made


class _Made(Dataset[Any]):
    """Whole batches, by their rows. An error is handed back: torch would lose its type."""

    def __init__(self, dataset: ShardDataset, collate: Callable[[list[Any]], Any]) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitem__(self, rows: list[Row]) -> Any:
        try:
            return self._collate(self._dataset.__getitems__(rows))
        except OcrError as exc:
            return exc


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class PadRows:
    """Collates rows of token ids: a dict of `input_ids`, `position_ids`, `images` and, named by
    `labels`, what is predicted.

    The first three names are int64 [B, T], padded on the right to the longest row with the id
    `pad`. Positions restart at 0 with each sample of a row and count on through the padding.
    "targets" holds at t the supervised id at t + 1, "labels" at t that at t itself (transformers'
    models shift them), else -100. There is no attention mask: padding comes last, and transformers
    keeps packed samples apart by their positions only without one. `images` are uint8 tensors
    [H, W, 3] in the order of their slots, row by row; none if all rows are text. With `letterbox`
    there is `pixel_values` in their place, what it makes of this list.
    """

    pad: int
    labels: Literal["targets", "labels"] = "targets"
    letterbox: Callable[[list[Tensor]], Tensor] | None = None

    def __call__(self, rows: Sequence[Item | list[Item]]) -> dict[str, Any]:
        """The batch. Raises UsageError for items without token ids."""
        samples = [[row] if isinstance(row, dict) else row for row in rows]
        if any("input_ids" not in one for row in samples for one in row):
            raise UsageError("samples without token ids: give the data set its tokens")
        padded = pad_rows(
            [[TokenPair(one["input_ids"].numpy(), one["targets"].numpy()) for one in row]
             for row in samples],
            pad=self.pad,
        )  # fmt: skip
        predicted = torch.from_numpy(padded.targets)
        if self.labels == "labels":
            predicted = predicted.roll(1, dims=1)  # the last target of a row is none
        images = [
            torch.from_numpy(image) for row in samples for one in row for image in one["images"]
        ]
        seen = {"pixel_values": self.letterbox(images)} if self.letterbox else {"images": images}
        return {
            "input_ids": torch.from_numpy(padded.input_ids),
            self.labels: predicted,
            "position_ids": torch.from_numpy(padded.position_ids),
            **seen,
        }


def _ranks() -> tuple[int, int]:
    """Rank and world size of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world_size = map(int, found)
    except ValueError as exc:
        raise UsageError(f"environment: RANK and WORLD_SIZE must be integers, not {found}") from exc
    return rank, world_size


def _shown(sources: Sequence[tuple[str, int, str]]) -> str:
    return ", ".join(f"{name} ({size:,} samples, {digest})" for name, size, digest in sources)
