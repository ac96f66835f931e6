"""Token counts of the samples of a view: found, or made once and kept beside the shards.

Owner of the counting: of each sample its texts are read, verified and tokenized exactly as training
will; images are not read. Processes share the shards. The file that results is
`ocrdata.tokens.counts`'.
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
from ocrdata.shards.names import is_compressed, set_name
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
"""One process more for each so many samples: it takes half a second to start, in which 5,000 are
counted (NOTES.md)."""


class ShardToCount(NamedTuple):
    """A shard to be counted, and the `rows_digest` of its index."""

    location: Location
    samples: int
    rows_digest: str


class ViewCounts:
    """The token counts of a view's samples, read shard by shard when they are asked for.

    Iterating gives `(first position in the view, Counts)` for each stretch of the view that lies in
    one shard: all of them together are the view's samples in its order. Of the files read one at a
    time is held. Safe to share between threads.
    """

    def __init__(self, shards: Shards, fingerprint: str) -> None:
        self.shards, self.fingerprint = shards, fingerprint

    def __len__(self) -> int:
        return len(self.shards)

    def __iter__(self) -> Iterator[tuple[int, Counts]]:
        for first, number, locals_ in self.shards.stretches():
            yield first, self.shard(number).take(locals_)

    def shard(self, number: int) -> Counts:
        """The counts of all samples of the set's shard `number`, from disk.

        Raises ShardError where they are missing or damaged.
        """
        shard = self.shards.shard_set.shards[number]
        path = find_counts(shard.location, self.fingerprint)
        if path is None:
            raise ShardError(
                shard.name,
                f"has no token counts for the tokenizer {self.fingerprint}",
                remedy="they were removed since the start; start again, and they are made again",
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
            raise ShardError(str(path), f"{len(counts):,} counts of {shard.samples:,} samples")
        return counts


def count_shards(
    shards: Shards, tokenizer: Tokenizer, *, workers: int = 1, progress: Progress | None = None
) -> ViewCounts:
    """The counts of a view's samples; made now for the shards it touches that have none.

    `workers` processes share them. Raises ShardError for a shard that cannot be read, DiskError
    where counts cannot be written; what was made until then is kept.
    """
    known = shards.shard_set.shards
    numbers = [number for _, number, _ in shards.stretches()]
    tars = [
        ShardToCount(known[n].location, known[n].samples, known[n].rows_digest) for n in numbers
    ]
    missing = [tar for tar in tars if _find(tar, tokenizer.fingerprint) is None]
    count_shard_files(missing, tokenizer, workers=workers, progress=progress)
    return ViewCounts(shards, tokenizer.fingerprint)


def count_anew(
    shards: Sequence[LocationLike],
    tokenizer: Tokenizer,
    *,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """As `count_shard_files`, for the maker of these shards: counts that are damaged, or of an
    earlier shard of that name, are replaced. Raises ShardError for a shard without its index."""
    missing = []
    for shard in shards:
        head = read_header(index_path(shard))
        tar = ShardToCount(Location.of(shard), head.samples, head.rows_digest)
        if not _counted(tar, tokenizer.fingerprint):
            missing.append(tar)
    count_shard_files(missing, tokenizer, workers=workers, progress=progress)


def _counted(tar: ShardToCount, fingerprint: str) -> bool:
    """Whether a shard has its counts, by their footer; a file that is something else goes."""
    path = _find(tar, fingerprint)
    if path is None:
        return False
    try:
        check_counts(path, rows_digest=tar.rows_digest, fingerprint=fingerprint)
    except ShardError:
        path.path.unlink(missing_ok=True)
        return False
    return True


def _find(tar: ShardToCount, fingerprint: str) -> Location | None:
    """`find_counts`; what a process left that was killed after its file was complete goes."""
    path = find_counts(tar.location, fingerprint)
    if path is not None:
        remove_abandoned(path.path)
    return path


def count_shard_files(
    tars: Sequence[ShardToCount],
    tokenizer: Tokenizer,
    *,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Make the counts of these shards, each complete or absent. Raises as `count_shards`."""
    if workers < 1:
        raise UsageError(f"{workers} workers: must be 1 or more")
    if not tars:
        return
    progress, name = progress or Progress(), set_name(tars[0].location.name)
    total = sum(tar.samples for tar in tars)
    task = CountTask(tuple(tars), tokenizer)
    progress.say(
        f"{name}: counting the tokens of {total:,} samples, once for the tokenizer "
        f"{tokenizer.fingerprint}"
    )
    progress.start(f"{name}: counting tokens", total, 0)

    def report(done: CountingProgress) -> None:
        progress.advance(done.samples, done.bytes)

    try:
        run_in_processes(
            task, range(len(tars)), min(workers, -(-total // SAMPLES_A_PROCESS) or 1), report
        )
    except BaseException:
        task.remove_leftovers()
        raise
    finally:
        progress.close()
    progress.say(f"{name}: counted in {human_time(progress.seconds)} ({progress.rates})")


class CountingProgress(NamedTuple):
    """What was counted since the last report. `bytes` are of JSON and texts."""

    samples: int
    bytes: int


@dataclass(frozen=True)
class CountTask:
    """What a worker process needs to count shards."""

    tars: tuple[ShardToCount, ...]
    tokenizer: Tokenizer

    def begin(self) -> None:
        """Nothing is to be prepared."""

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Count the shards of these numbers, one after the other. Raises ShardError, DiskError."""
        for number in shards:
            self._make_one(self.tars[number], report)

    def _make_one(self, tar: ShardToCount, report: Report) -> None:
        fingerprint = self.tokenizer.fingerprint
        try:
            self._make_at(counts_path(tar.location, fingerprint), tar, report)
        except DiskError:
            cached = cached_counts_path(tar.location, fingerprint)
            make_folder(cached.folder.path)
            self._make_at(cached, tar, report)

    def _make_at(self, path: Location, tar: ShardToCount, report: Report) -> None:
        with only_one(path.path):
            if exists(path):  # made by another process meanwhile
                report(CountingProgress(tar.samples, 0))
                return
            write_counts(
                path,
                self._count(tar, report),
                rows_digest=tar.rows_digest,
                fingerprint=self.tokenizer.fingerprint,
            )

    def _count(self, tar: ShardToCount, report: Report) -> Counts:
        shard_set = ShardSet(Resolved((tar.location,), None, {}, str(tar.location)), verify=True)
        found = shard_set.shards[0]
        if found.rows_digest != tar.rows_digest:
            raise ShardError(found.name, "its index is not the one there was when it was opened")
        builder = CountsBuilder()
        samples = size = 0
        for local in range(found.samples):
            members = shard_set.text_members(0, local)
            key = shard_set.index(0).keys[local]
            builder.add(count_members(found.name, key, members, self.tokenizer))
            samples, size = samples + 1, size + sum(map(len, members.values()))
            if samples == REPORT_SAMPLES:
                report(CountingProgress(samples, size))
                samples = size = 0
        report(CountingProgress(samples, size))
        return builder.finish()

    def remove_leftovers(self) -> None:
        """Remove what killed workers had begun to write; what another process writes stays."""
        for tar in self.tars:
            for where in (counts_path, cached_counts_path):
                with suppress(ShardError):  # the tar is gone, and with it its name in the cache
                    remove_abandoned(where(tar.location, self.tokenizer.fingerprint).path)


def count_members(
    shard: str, key: str, members: dict[str, bytes], tokenizer: Tokenizer
) -> list[TurnCount]:
    """The turns of one sample from its members, images empty; none where it is no conversation
    that can be rendered."""
    try:
        return count(to_sample(shard, key, members).messages, tokenizer)
    except (ShardError, RejectedRow):
        return []
