"""Plans over opened shards: the lengths of their samples, and the plan of a mixture of them.

Only indexes and token counts are read; missing token counts are computed first, once, and stored
beside the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ocrdata.errors import UsageError
from ocrdata.planning.blocks import BlockSize, blocks_of
from ocrdata.planning.choices import Weight
from ocrdata.planning.counting import count_shards, why_unfit
from ocrdata.planning.lengths import SampleLengths, join, sample_lengths
from ocrdata.planning.plan import Drawn, Plan, PlanSettings, PlanSource
from ocrdata.reading.view import Shards
from ocrdata.runtime.progress import to_terminal
from ocrdata.tokens.tokenizer import Tokenizer


def lengths_of_view(
    shards: Shards,
    tokenizer: Tokenizer,
    *,
    slots: int,
    seq_len: int,
    workers: int = 1,
    skip_damaged: bool = False,
) -> SampleLengths:
    """The lengths of a view's samples, in its order; missing token counts are computed first, by
    `workers` processes. An image takes `slots` positions.

    Holds the counts of one shard at a time. Raises ShardError for damaged indexes, token counts and
    (unless `skip_damaged`) samples.
    """
    counts = count_shards(
        shards, tokenizer, workers=workers, progress=to_terminal(), skip_damaged=skip_damaged
    )
    shards.shard_set.load_indexes([number for _, number, _ in shards.stretches()])
    parts = []
    for _, number, locals_ in shards.stretches():
        blocks = shards.shard_set.blocks(number)
        sizes = np.concatenate([block.payload_sizes for block in blocks])[locals_]
        parts.append(
            sample_lengths(
                counts.shard(number).take(locals_),
                np.minimum(sizes, np.iinfo(np.uint32).max).astype(np.uint32),
                slots=slots,
                seq_len=seq_len,
            )
        )
    return join(parts)


def refuse_unfit(name: str, shards: Shards, found: SampleLengths, tokenizer: Tokenizer) -> None:
    """Raise UsageError naming the first sample that is not a conversation to train on."""
    if len(found.unfit):
        first = int(found.unfit[0])
        ref = shards.ref(first)
        raise UsageError(
            f"{name}: {len(found.unfit):,} samples are not conversations that can be trained on; "
            f"the first is {ref.shard}: sample {ref.key}: {why_unfit(shards, first, tokenizer)}; "
            "exclude them with a slice, or mask them with --bad-samples skip"
        )


def refuse_too_long(name: str, shards: Shards, found: SampleLengths, seq_len: int) -> None:
    """Raise UsageError naming the longest sample if one is longer than `seq_len`."""
    if len(found.truncated):
        longest = int(found.truncated[np.argmax(found.truncated_tokens)])
        ref = shards.ref(longest)
        raise UsageError(
            f"{name}: {len(found.truncated):,} samples are longer than --seq-len {seq_len}; "
            f"the longest, {ref.shard}: sample {ref.key}, has "
            f"{int(found.untruncated[longest]):,} tokens; "
            "give a larger --seq-len, or use --too-long truncate or --too-long drop"
        )


NOTHING_DRAWN = Drawn()


def plan_views(
    views: Mapping[str, Shards],
    weights: Mapping[str, Weight],
    settings: PlanSettings,
    *,
    lengths: Sequence[SampleLengths] = (),
    recorded: Mapping[str, BlockSize] | None = None,
    drawn: Drawn = NOTHING_DRAWN,
) -> Plan:
    """The plan of a mixture of sources, by their names. `recorded` are the blocks of an earlier
    plan, which are kept; it begins after what a run has `drawn` before. Raises UsageError if it
    cannot be planned."""
    known = recorded or {}
    return Plan(
        [
            PlanSource(
                name,
                len(shards),
                weights[name],
                shards.spec,
                shards.digest,
                None if settings.shuffle == "full" else blocks_of(shards, known.get(name)),
                drawn.rows.get(name, 0),
            )
            for name, shards in views.items()
        ],
        settings,
        lengths,
        first_step=drawn.step,
    )
