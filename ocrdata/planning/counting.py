"""Token counts of the samples of a view: computed once, and stored beside the shards.

The texts of each sample are read, verified and tokenized exactly as in training; images are not
read. Several processes count different shards. The file format is in `ocrdata.tokens.counts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ocrdata.errors import DiskError, RejectedRow, ShardError, UsageError
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.spec import Resolved
from ocrdata.reading.view import Shards
from ocrdata.runtime.processes import Report, run_in_processes
from ocrdata.runtime.progress import Progress
from ocrdata.runtime.units import human_time
from ocrdata.shards.frames import most_content
from ocrdata.shards.index import index_path, read_header
from ocrdata.shards.members import to_sample
from ocrdata.shards.names import is_compressed, set_title
from ocrdata.storage.file import exists
from ocrdata.storage.files import make_folder
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.locks import only_one, remove_abandoned
from ocrdata.tokens.counts import (
    Counts,
    CountsBuilder,
    cached_counts_path,
    check_counts,
    counts_path,
    find_counts,
    read_counts,
    write_counts,
)
from ocrdata.tokens.rendering import TurnCount, count
from ocrdata.tokens.tokenizer import Tokenizer

REPORT_SAMPLES = 64
SAMPLES_A_PROCESS = 16_384
"""Samples per process: starting one takes half a second, in which 5,000 are counted (NOTES.md)."""


class ShardToCount(NamedTuple):
    """A shard whose samples are to be counted, and the `rows_digest` of its index."""

    location: Location
    samples: int
    rows_digest: str


class ViewCounts:
    """The token counts of a view's samples, read from disk shard by shard when needed.

    Iterating yields `(first position in the view, Counts)` for each part of the view that is in one
    shard, in the view's order. Only one shard's counts are in memory at a time. Thread-safe.
    """

    def __init__(self, shards: Shards, fingerprint: str) -> None:
        self.shards, self.fingerprint = shards, fingerprint

    def __len__(self) -> int:
        return len(self.shards)

    def __iter__(self) -> Iterator[tuple[int, Counts]]:
        for first, number, locals_ in self.shards.stretches():
            yield first, self.shard(number).take(locals_)

    def shard(self, number: int) -> Counts:
        """The counts of all samples in shard `number` of the set.

        Raises ShardError if they are missing or corrupted.
        """
        shard = self.shards.shard_set.shards[number]
        path = find_counts(shard.location, self.fingerprint)
        if path is None:
            raise ShardError(
                shard.name,
                f"token counts for tokenizer {self.fingerprint} are missing",
                remedy="they were removed while this command was running; rerun it to count again",
            )
        counts = read_counts(
            path,
            rows_digest=shard.rows_digest,
            fingerprint=self.fingerprint,
            tar_size=most_content(shard.bytes)
            if is_compressed(shard.location.name)
            else shard.bytes,
        )
        if len(counts) != shard.samples:
            raise ShardError(str(path), f"has {len(counts):,} counts for {shard.samples:,} samples")
        return counts


def count_shards(
    shards: Shards, tokenizer: Tokenizer, *, workers: int = 1, progress: Progress | None = None
) -> ViewCounts:
    """The counts of a view's samples. Shards of the view without counts are counted now.

    `workers` processes count in parallel. Raises ShardError if a shard cannot be read, DiskError if
    counts cannot be written; shards counted before that keep their counts.
    """
    known = shards.shard_set.shards
    numbers = [number for _, number, _ in shards.stretches()]
    touched = [
        ShardToCount(known[n].location, known[n].samples, known[n].rows_digest) for n in numbers
    ]
    missing = [shard for shard in touched if _find(shard, tokenizer.fingerprint) is None]
    count_shard_files(missing, tokenizer, workers=workers, progress=progress)
    return ViewCounts(shards, tokenizer.fingerprint)


def count_anew(
    shards: Sequence[LocationLike],
    tokenizer: Tokenizer,
    *,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Count shards that were just written. Counts that are corrupted, or belong to an earlier shard
    of that name, are replaced. Raises like `count_shards`; ShardError also for a missing index."""
    missing = []
    for location in shards:
        header = read_header(index_path(location))
        shard = ShardToCount(Location.of(location), header.samples, header.rows_digest)
        if not _has_valid_counts(shard, tokenizer.fingerprint):
            missing.append(shard)
    count_shard_files(missing, tokenizer, workers=workers, progress=progress)


def _has_valid_counts(shard: ShardToCount, fingerprint: str) -> bool:
    """Whether a shard has counts, judged by the footer of their file; invalid ones are deleted."""
    path = _find(shard, fingerprint)
    if path is None:
        return False
    try:
        check_counts(path, rows_digest=shard.rows_digest, fingerprint=fingerprint)
    except ShardError:
        path.path.unlink(missing_ok=True)
        return False
    return True


def _find(shard: ShardToCount, fingerprint: str) -> Location | None:
    """Like `find_counts`; if there are counts, leftovers of a killed process are removed."""
    path = find_counts(shard.location, fingerprint)
    if path is not None:
        remove_abandoned(path.path)
    return path


def count_shard_files(
    shards: Sequence[ShardToCount],
    tokenizer: Tokenizer,
    *,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Count these shards; afterwards each has complete counts or none. Raises like
    `count_shards`."""
    if workers < 1:
        raise UsageError(f"{workers} workers: must be 1 or more")
    if not shards:
        return
    progress, name = progress or Progress(), set_title(shards[0].location)
    total = sum(shard.samples for shard in shards)
    task = CountTask(tuple(shards), tokenizer)
    progress.say(
        f"{name}: counting the tokens of {total:,} samples, once per tokenizer "
        f"({tokenizer.fingerprint})"
    )
    progress.start(f"{name}: counting tokens", total, 0)

    def report(done: CountingProgress) -> None:
        progress.advance(done.samples, done.bytes)

    try:
        run_in_processes(
            task, range(len(shards)), min(workers, -(-total // SAMPLES_A_PROCESS) or 1), report
        )
    except BaseException:
        task.remove_leftovers()
        raise
    finally:
        progress.close()
    progress.say(f"{name}: counted in {human_time(progress.seconds)} ({progress.rates})")


class CountingProgress(NamedTuple):
    """Samples counted since the last report, and their bytes of JSON and text."""

    samples: int
    bytes: int


@dataclass(frozen=True)
class CountTask:
    """The work of a process that counts shards."""

    shards: tuple[ShardToCount, ...]
    tokenizer: Tokenizer

    def begin(self) -> None:
        """Nothing to prepare."""

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Count the shards with these numbers, in order. Raises ShardError, DiskError."""
        for number in shards:
            self._store_counts(self.shards[number], report)

    def _store_counts(self, shard: ShardToCount, report: Report) -> None:
        """Count a shard and store the counts beside it; in the cache if that is impossible."""
        fingerprint = self.tokenizer.fingerprint
        try:
            self._store_at(counts_path(shard.location, fingerprint), shard, report)
        except DiskError:
            cached = cached_counts_path(shard.location, fingerprint)
            make_folder(cached.folder.path)
            self._store_at(cached, shard, report)

    def _store_at(self, path: Location, shard: ShardToCount, report: Report) -> None:
        with only_one(path.path):
            if exists(path):  # another process counted this shard in the meantime
                report(CountingProgress(shard.samples, 0))
                return
            write_counts(
                path,
                self._count(shard, report),
                rows_digest=shard.rows_digest,
                fingerprint=self.tokenizer.fingerprint,
            )

    def _count(self, shard: ShardToCount, report: Report) -> Counts:
        shard_set = ShardSet(
            Resolved((shard.location,), None, {}, str(shard.location)), verify=True
        )
        found = shard_set.shards[0]
        if found.rows_digest != shard.rows_digest:
            raise ShardError(found.name, "its index was replaced after the shard was opened")
        builder = CountsBuilder()
        samples = size = 0
        for local in range(found.samples):
            members = shard_set.text_members(0, local)
            block, at = shard_set.block(0, local)
            key = block.key(at)
            builder.add(count_members(found.name, key, members, self.tokenizer))
            samples, size = samples + 1, size + sum(map(len, members.values()))
            if samples == REPORT_SAMPLES:
                report(CountingProgress(samples, size))
                samples = size = 0
        report(CountingProgress(samples, size))
        return builder.finish()

    def remove_leftovers(self) -> None:
        """Remove incomplete files of killed workers, but not those another process is writing."""
        for shard in self.shards:
            for path_of in (counts_path, cached_counts_path):
                # Without the shard itself, the name of its counts in the cache is unknown.
                with suppress(ShardError):
                    remove_abandoned(path_of(shard.location, self.tokenizer.fingerprint).path)


def count_members(
    shard: str, key: str, members: dict[str, bytes], tokenizer: Tokenizer
) -> list[TurnCount]:
    """The token counts of one sample's turns, from its members with images left empty; [] if the
    sample is not a conversation that can be rendered."""
    try:
        return count(to_sample(shard, key, members).messages, tokenizer)
    except (ShardError, RejectedRow):
        return []
