"""The batch of any step. `Stream.batch(step)` is `batch = f(plan, step)`: it depends on the plan,
the shards, the tokenizer and the recorded skipped samples, and on nothing else.
"""

from __future__ import annotations

import itertools
from functools import partial

from ocrdata.errors import ShardError, UsageError
from ocrdata.planning.fetch_ahead import FetchAhead
from ocrdata.planning.plan import Plan, SampleIndex
from ocrdata.reading.prefetch import Assembly
from ocrdata.reading.samples import load_sample, skippable
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, PreparedSample, collate, masked_sample, prepare_sample
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources
from ocrtrain.settings.config import Config


class Stream:
    """The batches of a plan. Thread-safe: the prefetcher's workers make an `assembly` together.

    An unusable sample raises ShardError, or is masked if `skipped` allows that; those already in
    `skipped` are masked without being read. With `fetch_from`, the step of the first batch, what
    comes from URLs is fetched ahead, for batches that are made in the order of their steps.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        config: Config,
        *,
        tokenizer: Tokenizer,
        skipped: SkippedSamples | None = None,
        fetch_from: int | None = None,
    ) -> None:
        self.plan = plan
        self._ahead = None
        if fetch_from is not None:
            views = list(sources.train.values())
            self._ahead = FetchAhead(plan, views, start=fetch_from, cache_bytes=config.cache_bytes)
        self._names = list(sources.train)
        self._shards = list(sources.train.values())
        self._tokenizer = tokenizer
        self._image_size, self._seq_len = config.image_size, config.seq_len
        self._skipped = SkippedSamples() if skipped is None else skipped

    def batch(self, step: int) -> Batch:
        """The global batch of a step."""
        return self.part(step, range(self.plan.batch))

    def part(self, step: int, rows: range) -> Batch:
        """Some rows of a step's global batch: what one rank trains on (`rank_rows`)."""
        return self.assembly(step, rows).make()

    def assembly(self, step: int, rows: range | None = None) -> Assembly[PreparedSample, Batch]:
        """How the batch of a step is made, or some of its rows: sample by sample, for the
        prefetcher's threads."""
        if self._ahead is not None:
            self._ahead.begin(step)
        planned = self.plan.rows(step, range(self.plan.batch) if rows is None else rows)

        def join(samples: list[PreparedSample]) -> Batch:
            left = iter(samples)
            batch = collate(
                step,
                [list(itertools.islice(left, len(row))) for row in planned],
                tokenizer=self._tokenizer,
                image_size=self._image_size,
            )
            _ = batch.identity  # computed and cached here, in a worker: the trainer will log it
            if self._ahead is not None:
                self._ahead.end(step)
            return batch

        return Assembly(
            [partial(self._prepare, step, index) for row in planned for index in row], join
        )

    def _prepare(self, step: int, index: SampleIndex) -> PreparedSample:
        shards, name = self._shards[index.source], self._names[index.source]
        ref = shards.ref(index.position)
        reason = self._skipped.reason((step, name, ref.position))
        if not reason:
            try:
                item = load_sample(shards, index.position, source=name, image_size=self._image_size)
                return prepare_sample(
                    item,
                    tokenizer=self._tokenizer,
                    image_size=self._image_size,
                    seq_len=self._seq_len,
                )
            except ShardError as exc:
                if not (self._skipped.skip and skippable(exc)):
                    raise
                reason = exc.detail
        return masked_sample(ref, name, reason=reason, tokenizer=self._tokenizer)


def rank_rows(batch: int, rank: int, world: int) -> range:
    """The rows of a global batch that one of `world` ranks trains on. Raises UsageError if they
    cannot be split evenly."""
    if world < 1 or not 0 <= rank < world:
        raise UsageError(f"rank {rank} of {world}: a rank must be 0 to world size - 1")
    if batch % world:
        raise UsageError(f"a batch of {batch} rows cannot be split evenly across {world} ranks")
    each = batch // world
    return range(rank * each, (rank + 1) * each)
