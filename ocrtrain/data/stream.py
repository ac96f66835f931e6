"""From shards to batches: a run's sources, its plan, and the batch of any step.

Owner of the way between `ocrdata` and the trainer. `Stream.batch(step)` is `batch = f(plan, step)`:
it reads the plan, the shards and the tokenizer, and nothing else.
"""

from __future__ import annotations

from ocrdata.errors import ShardError, UsageError
from ocrdata.planning.plan import Plan, SampleIndex
from ocrdata.reading.samples import load_sample, skippable
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, PreparedSample, collate, masked_sample, prepare_sample
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources
from ocrtrain.settings.config import Config


class Stream:
    """The batches of a plan. Thread-safe: the loader's workers call `batch` and `part`.

    A sample that cannot be used is an error, or a hole where `bad` says so; those that `bad`
    knows are holes without being read.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        config: Config,
        *,
        tokenizer: Tokenizer,
        bad: SkippedSamples | None = None,
    ) -> None:
        self.plan = plan
        self._names = list(sources.train)
        self._shards = list(sources.train.values())
        self._tokenizer = tokenizer
        self._image_size, self._seq_len = config.image_size, config.seq_len
        self._bad = SkippedSamples() if bad is None else bad

    def batch(self, step: int) -> Batch:
        """The global batch of a step."""
        return self.part(step, range(self.plan.batch))

    def part(self, step: int, rows: range) -> Batch:
        """Some rows of a step's global batch: what a rank trains on (`rank_rows`)."""
        batch = collate(
            step,
            [[self._piece(step, place) for place in row] for row in self.plan.rows(step, rows)],
            tokenizer=self._tokenizer,
            image_size=self._image_size,
        )
        _ = batch.identity  # computed here, by a worker, and kept: the trainer records it
        return batch

    def _piece(self, step: int, place: SampleIndex) -> PreparedSample:
        shards, name = self._shards[place.source], self._names[place.source]
        ref = shards.ref(place.position)
        reason = self._bad.reason((step, name, ref.position))
        if not reason:
            try:
                item = load_sample(shards, place.position, source=name, image_size=self._image_size)
                return prepare_sample(
                    item,
                    tokenizer=self._tokenizer,
                    image_size=self._image_size,
                    seq_len=self._seq_len,
                )
            except ShardError as exc:
                if not (self._bad.skip and skippable(exc)):
                    raise
                reason = exc.detail
        return masked_sample(ref, name, reason=reason, tokenizer=self._tokenizer)


def rank_rows(batch: int, rank: int, world: int) -> range:
    """The rows of a global batch that one of `world` ranks has. Raises UsageError where they
    cannot be shared out evenly."""
    if world < 1 or not 0 <= rank < world:
        raise UsageError(f"rank {rank} of {world}: ranks are 0 to world size - 1")
    if batch % world:
        raise UsageError(f"a batch of {batch} rows cannot be shared out among {world} ranks")
    each = batch // world
    return range(rank * each, (rank + 1) * each)
