"""The batch of any step. `Stream.batch(step)` is `batch = f(plan, step)`: it depends on the plan,
the shards, the tokenizer and the recorded skipped samples, and on nothing else.
"""

from __future__ import annotations

import itertools
from functools import partial

from ocrdata.errors import ShardError
from ocrdata.planning.fetch_ahead import FetchAhead
from ocrdata.planning.plan import Plan, SampleIndex
from ocrdata.reading.prefetch import Assembly
from ocrdata.reading.samples import load_sample, skippable
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, PreparedSample, collate, masked_sample, prepare_sample
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources
from ocrtrain.settings.config import Config
from ocrtrain.settings.world import World


class Stream:
    """The batches of a plan. Thread-safe: the prefetcher's workers make an `assembly` together.

    An unusable sample raises ShardError, or is masked if `skipped` allows that; those already in
    `skipped` are masked without being read. In a `world` of several ranks, the batches are of this
    rank's rows. Steps are those of the run, in which a plan may begin later (`first_step`).
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        config: Config,
        *,
        tokenizer: Tokenizer,
        skipped: SkippedSamples | None = None,
        world: World | None = None,
    ) -> None:
        self.plan, self._start = plan, plan.first_step
        self._rows = (world or World()).rows(plan.batch)
        self._ahead: FetchAhead | None = None
        self._cache_bytes = config.cache_bytes
        self._names = list(sources.train)
        self._shards = list(sources.train.values())
        self._tokenizer = tokenizer
        self._modes = [config.image_mode(name) for name in sources.train]
        self._seq_len = config.seq_len
        self._skipped = SkippedSamples() if skipped is None else skipped

    def fetch_ahead(self, step: int) -> None:
        """From now on, fetch ahead what comes from URLs, for batches that are made in the order of
        their steps, from `step` on."""
        self._ahead = FetchAhead(
            self.plan,
            self._shards,
            part=self._rows,
            start=step - self._start,
            cache_bytes=self._cache_bytes,
        )

    def close(self) -> None:
        """Release what was fetched ahead for batches that are not made."""
        if self._ahead is not None:
            self._ahead.close()

    def batch(self, step: int) -> Batch:
        """The batch of a step: the global one, or the rank's part of it."""
        return self.part(step, self._rows)

    def part(self, step: int, rows: range) -> Batch:
        """Some rows of a step's global batch: what one rank trains on (`World.rows`)."""
        return self.assembly(step, rows).make()

    def assembly(self, step: int, rows: range | None = None) -> Assembly[PreparedSample, Batch]:
        """How the batch of a step is made, or some of its rows: sample by sample, for the
        prefetcher's threads."""
        if self._ahead is not None:
            self._ahead.begin(step - self._start)
        planned = self.plan.rows(step - self._start, self._rows if rows is None else rows)

        def join(samples: list[PreparedSample]) -> Batch:
            left = iter(samples)
            batch = collate(
                step,
                [list(itertools.islice(left, len(row))) for row in planned],
                tokenizer=self._tokenizer,
            )
            _ = batch.summary  # computed and cached here, in a worker: the trainer will log it
            if self._ahead is not None:
                self._ahead.end(step - self._start)
            return batch

        return Assembly(
            [partial(self._prepare, step, index) for row in planned for index in row], join
        )

    def _prepare(self, step: int, index: SampleIndex) -> PreparedSample:
        shards, name = self._shards[index.source], self._names[index.source]
        mode = self._modes[index.source]
        ref = shards.ref(index.position)
        reason = self._skipped.reason((step, name, ref.position))
        if not reason:
            try:
                item = load_sample(shards, index.position, source=name, mode=mode)
                return prepare_sample(
                    item, tokenizer=self._tokenizer, mode=mode, seq_len=self._seq_len
                )
            except ShardError as exc:
                if not (self._skipped.skip and skippable(exc)):
                    raise
                reason = exc.detail
        return masked_sample(ref, name, reason=reason, tokenizer=self._tokenizer)
