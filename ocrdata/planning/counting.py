"""Token counts of the samples of a view: computed once, and stored beside the shards.

The texts of each sample are read, verified and tokenized exactly as in training; images are not
read. Several processes count different shards. The file format is in `ocrdata.tokens.counts`.

Where that is allowed, a sample whose bytes are damaged is counted as one that cannot be rendered.
Its counts file names it, and whenever that file is used, the sample is read again: once the shard
is repaired it is counted anew, so that no hole outlives its damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ocrdata.errors import DiskError, RejectedRow, ShardError, UsageError, first_line
from ocrdata.planning.far_counts import fetch_counts, keep_counts, kept_counts
from ocrdata.reading.samples import skippable
from ocrdata.reading.shard_entry import ShardEntry
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.spec import Listed, Resolved
from ocrdata.reading.texts import text_cost, texts_of_shard
from ocrdata.reading.view import Shards
from ocrdata.runtime.processes import Report, run_in_processes
from ocrdata.runtime.progress import Progress
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.shards.frames import most_content
from ocrdata.shards.index import index_path, read_header
from ocrdata.shards.manifest import Manifest, ShardInfo
from ocrdata.shards.members import to_sample
from ocrdata.shards.names import is_compressed, set_title
from ocrdata.storage import fetching
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
    encode_counts,
    find_counts,
    read_counts,
    write_counts,
)
from ocrdata.tokens.counts_list import remove_counts_lists, write_counts_list
from ocrdata.tokens.rendering import TurnCount, count
from ocrdata.tokens.tokenizer import Tokenizer

REPORT_SAMPLES = 64
REQUESTS_A_SECOND, BYTES_A_SECOND = 800, 50_000_000
"""What a usual connection brings, for the forecast of counting shards at a URL."""

NAMED = 10
"""Most damaged samples that are named one by one."""

SAMPLES_A_PROCESS = 16_384
"""Samples per process: starting one takes half a second, in which 5,000 are counted (NOTES.md)."""


class ShardToCount(NamedTuple):
    """A shard whose samples are to be counted, the `rows_digest` of its index, and what a manifest
    says of it, without which a shard at a URL cannot be read."""

    location: Location
    samples: int
    rows_digest: str
    info: ShardInfo | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is at a URL."""
        return bool(self.location.scheme)


class ViewCounts:
    """The token counts of a view's samples, read from disk shard by shard when needed.

    Iterating yields `(first position in the view, Counts)` for each part of the view that is in one
    shard, in the view's order. Only one shard's counts are in memory at a time. Thread-safe.
    Damaged samples raise their error, unless `skip_damaged`: then they have no turns.
    """

    def __init__(self, shards: Shards, tokenizer: Tokenizer, *, skip_damaged: bool) -> None:
        self.shards, self.tokenizer, self.skip_damaged = shards, tokenizer, skip_damaged

    def __len__(self) -> int:
        return len(self.shards)

    def __iter__(self) -> Iterator[tuple[int, Counts]]:
        for first, number, locals_ in self.shards.stretches():
            yield first, self.shard(number).take(locals_)

    def shard(self, number: int) -> Counts:
        """The counts of all samples in shard `number` of the set.

        Raises ShardError if they are missing or corrupted, or name a sample that is still damaged.
        """
        counts = self._read(number)
        if self._is_repaired(number, counts):
            entry, shard = self.shards.shard_set.shards[number], self._to_count(number)
            count_shard_files([shard], self.tokenizer, workers=1, skip_damaged=self.skip_damaged)
            _write_lists(self.shards.shard_set, self.tokenizer.fingerprint)
            counts = self._read(number)
            if self._is_repaired(number, counts):
                raise ShardError(
                    entry.name,
                    f"its token counts for tokenizer {self.tokenizer.fingerprint} were made before "
                    "it was repaired, and cannot be replaced",
                    remedy="delete them; they are recreated in the cache",
                )
        return counts

    def _to_count(self, number: int) -> ShardToCount:
        return shards_to_count(self.shards.shard_set, [number])[0]

    def _is_repaired(self, number: int, counts: Counts) -> bool:
        """Whether a sample that the counts call damaged is intact. Raises the error of one that is
        not, unless it may be skipped."""
        if not counts.damaged:
            return False
        shard, repaired = _verified(self._to_count(number)), False
        for local in counts.damaged:
            try:
                shard.text_members(0, local)
            except ShardError as exc:
                if not (self.skip_damaged and skippable(exc)):
                    raise
            else:
                repaired = True
        return repaired

    def _read(self, number: int) -> Counts:
        shard, fingerprint = self.shards.shard_set.shards[number], self.tokenizer.fingerprint
        if shard.location.scheme:
            return self._read_far(number)
        path = find_counts(shard.location, fingerprint)
        if path is None:
            raise ShardError(
                shard.name,
                f"token counts for tokenizer {fingerprint} are missing",
                remedy="they were removed while this command was running; rerun it to count again",
            )
        return self._checked(path, shard, None)

    def _checked(self, path: Location, shard: ShardEntry, data: bytes | None) -> Counts:
        counts = read_counts(
            path,
            rows_digest=shard.rows_digest,
            fingerprint=self.tokenizer.fingerprint,
            tar_size=most_content(shard.bytes)
            if is_compressed(shard.location.name)
            else shard.bytes,
            data=data,
        )
        if len(counts) != shard.samples:
            raise ShardError(str(path), f"has {len(counts):,} counts for {shard.samples:,} samples")
        return counts

    def _read_far(self, number: int) -> Counts:
        """The counts of a shard at a URL. A small cache may have evicted them: then they are
        fetched, or made, once more."""
        shard, wanted = self.shards.shard_set.shards[number], self._to_count(number)
        fingerprint = self.tokenizer.fingerprint
        data = kept_counts(shard.location, shard.rows_digest, fingerprint)
        if data is None and wanted.info is not None:
            fetch_counts([(shard.location, wanted.info)], fingerprint)
            data = kept_counts(shard.location, shard.rows_digest, fingerprint)
        if data is None:
            task = CountTask((wanted,), self.tokenizer, self.skip_damaged)
            return task.count(wanted, lambda _: None)
        return self._checked(counts_path(shard.location, fingerprint), shard, data)


def count_shards(
    shards: Shards,
    tokenizer: Tokenizer,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    skip_damaged: bool = False,
) -> ViewCounts:
    """The counts of a view's samples. Shards of the view without counts are counted now.

    `workers` processes count in parallel. Raises ShardError if a shard cannot be read (with
    `skip_damaged` not for the damage of single samples, which are named and have no turns),
    DiskError if counts cannot be written; shards counted before that keep their counts.
    """
    numbers = [number for _, number, _ in shards.stretches()]
    touched = shards_to_count(shards.shard_set, numbers)
    far = [(shard.location, shard.info) for shard in touched if shard.is_remote and shard.info]
    if far:
        fetch_counts([(place, info) for place, info in far if info.samples], tokenizer.fingerprint)
    missing = [shard for shard in touched if not _has_counts(shard, tokenizer.fingerprint)]
    count_shard_files(
        missing, tokenizer, workers=workers, progress=progress, skip_damaged=skip_damaged
    )
    _write_lists(shards.shard_set, tokenizer.fingerprint)
    return ViewCounts(shards, tokenizer, skip_damaged=skip_damaged)


def shards_to_count(shard_set: ShardSet, numbers: Sequence[int]) -> list[ShardToCount]:
    """Shards of a set, for counting."""
    entries = [shard_set.shards[number] for number in numbers]
    return [
        ShardToCount(one.location, one.samples, one.rows_digest, shard_set.info(number))
        for one, number in zip(entries, numbers, strict=True)
    ]


def _write_lists(shards: ShardSet, fingerprint: str) -> None:
    """Write the lists of counts of those sets that have none and are counted completely."""
    sets = {id(one.manifest): (shard, one.manifest) for shard, one in shards.listed.items()}
    for shard, manifest in sets.values():
        if not shard.scheme:
            write_counts_list(shard.folder, manifest, fingerprint)


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
    """Whether a shard has counts, judged by the footer of their file; invalid ones are deleted, and
    those of a shard with damaged samples."""
    path = _find(shard, fingerprint)
    if path is None:
        return False
    try:
        header = check_counts(path, rows_digest=shard.rows_digest, fingerprint=fingerprint)
    except ShardError:
        header = None
    if header is None or header.damaged:
        path.path.unlink(missing_ok=True)
        return False
    return True


def _has_counts(shard: ShardToCount, fingerprint: str) -> bool:
    if shard.is_remote:
        return kept_counts(shard.location, shard.rows_digest, fingerprint) is not None
    return _find(shard, fingerprint) is not None


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
    skip_damaged: bool = False,
) -> None:
    """Count these shards, also those whose counts name damaged samples; afterwards each has
    complete counts or none. Raises like `count_shards`."""
    if workers < 1:
        raise UsageError(f"{workers} workers: must be 1 or more")
    if not shards:
        return
    remove_counts_lists([shard.location for shard in shards], tokenizer.fingerprint)
    progress, name = progress or Progress(), set_title(shards[0].location)
    total = sum(shard.samples for shard in shards)
    task = CountTask(tuple(shards), tokenizer, skip_damaged, fetching.cache_in_use())
    progress.say(
        f"{name}: counting the tokens of {total:,} samples, once per tokenizer "
        f"({tokenizer.fingerprint})"
    )
    remote = [text_cost(one.samples, one.info.bytes) for one in shards if one.info]
    if shards[0].is_remote and remote:
        requests, size = sum(one.requests for one in remote), sum(one.bytes for one in remote)
        seconds = max(requests / REQUESTS_A_SECOND, size / BYTES_A_SECOND)
        progress.say(
            f"{name}: reading its texts from {shards[0].location.folder} takes about {requests:,} "
            f"requests and {human_bytes(size)}, {human_time(seconds)} on a usual connection; "
            "shards with token counts beside them (make_shards --tokenizer) need none of it"
        )
    progress.start(f"{name}: counting tokens", total, 0)

    damaged: list[str] = []

    def report(done: CountingProgress) -> None:
        progress.advance(done.samples, done.bytes)
        damaged.extend(done.damaged)

    try:
        run_in_processes(
            task, range(len(shards)), min(workers, -(-total // SAMPLES_A_PROCESS) or 1), report
        )
    except BaseException:
        task.remove_leftovers()
        raise
    finally:
        progress.close()
    for place in damaged[:NAMED]:
        progress.say(f"{place}; counted as a sample to skip")
    if len(damaged) > NAMED:
        progress.say(f"{name}: {len(damaged) - NAMED:,} more samples are damaged")
    progress.say(f"{name}: counted in {human_time(progress.seconds)} ({progress.rates})")


class CountingProgress(NamedTuple):
    """Samples counted since the last report, their bytes of JSON and text, and what is damaged."""

    samples: int
    bytes: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountTask:
    """The work of a process that counts shards."""

    shards: tuple[ShardToCount, ...]
    tokenizer: Tokenizer
    skip_damaged: bool = False
    cache: fetching.Cache | None = None

    def begin(self) -> None:
        """Use the cache of the process that started this one."""
        fetching.use_cache(self.cache)

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Count the shards with these numbers, in order. Raises ShardError, DiskError."""
        for number in shards:
            self._store_counts(self.shards[number], report)

    def _store_counts(self, shard: ShardToCount, report: Report) -> None:
        """Count a shard and store the counts beside it; in the cache if that is impossible."""
        fingerprint = self.tokenizer.fingerprint
        if shard.is_remote:
            counts = self.count(shard, report)
            data = encode_counts(counts, rows_digest=shard.rows_digest, fingerprint=fingerprint)
            keep_counts(shard.location, shard.rows_digest, fingerprint, data)
            return
        try:
            self._store_at(counts_path(shard.location, fingerprint), shard, report)
        except DiskError:
            cached = cached_counts_path(shard.location, fingerprint)
            make_folder(cached.folder.path)
            self._store_at(cached, shard, report)

    def _store_at(self, path: Location, shard: ShardToCount, report: Report) -> None:
        with only_one(path.path):
            if self._is_counted(path, shard):  # by another process, in the meantime
                report(CountingProgress(shard.samples, 0))
                return
            write_counts(
                path,
                self.count(shard, report),
                rows_digest=shard.rows_digest,
                fingerprint=self.tokenizer.fingerprint,
            )

    def _is_counted(self, path: Location, shard: ShardToCount) -> bool:
        if not exists(path):
            return False
        fingerprint = self.tokenizer.fingerprint
        header = check_counts(path, rows_digest=shard.rows_digest, fingerprint=fingerprint)
        return not header.damaged

    def count(self, shard: ShardToCount, report: Report) -> Counts:
        """The counts of a shard; they are not stored. Raises like `count_shards`."""
        shard_set = _verified(shard)
        found = shard_set.shards[0]
        if found.rows_digest != shard.rows_digest:
            raise ShardError(found.name, "its index was replaced after the shard was opened")
        builder = CountsBuilder()
        samples = size = 0
        for local, members in texts_of_shard(shard_set):
            samples += 1
            if isinstance(members, ShardError):
                if not (self.skip_damaged and skippable(members)):
                    raise members
                builder.add_damaged()
                report(CountingProgress(0, 0, (first_line(members),)))
                continue
            block, at = shard_set.block(0, local)
            key = block.key(at)
            builder.add(count_members(found.name, key, members, self.tokenizer))
            size += sum(map(len, members.values()))
            if samples >= REPORT_SAMPLES:
                report(CountingProgress(samples, size))
                samples = size = 0
        report(CountingProgress(samples, size))
        return builder.finish()

    def remove_leftovers(self) -> None:
        """Remove incomplete files of killed workers, but not those another process is writing."""
        for shard in self.shards:
            if shard.is_remote:
                continue
            for path_of in (counts_path, cached_counts_path):
                # Without the shard itself, the name of its counts in the cache is unknown.
                with suppress(ShardError):
                    remove_abandoned(path_of(shard.location, self.tokenizer.fingerprint).path)


def _verified(shard: ShardToCount) -> ShardSet:
    listed = {}
    if shard.info is not None and shard.is_remote:
        manifest = Manifest(set_title(shard.location), (shard.info,))
        listed[shard.location] = Listed(manifest, shard.info)
    found = Resolved((shard.location,), None, listed, str(shard.location))
    return ShardSet(found, verify=True)


def count_members(
    shard: str, key: str, members: dict[str, bytes], tokenizer: Tokenizer
) -> list[TurnCount]:
    """The token counts of one sample's turns, from its members with images left empty; [] if the
    sample is not a conversation that can be rendered."""
    try:
        return count(to_sample(shard, key, members).messages, tokenizer)
    except (ShardError, RejectedRow):
        return []


def why_unfit(shards: Shards, position: int, tokenizer: Tokenizer) -> str:
    """Why a sample of a view that has no turns in its counts cannot be rendered."""
    ref, shard_set = shards.ref(position), shards.shard_set
    try:
        members = shard_set.text_members(*shard_set.locate(ref.position))
        count(to_sample(ref.shard, ref.key, members).messages, tokenizer)
    except ShardError as exc:
        return exc.detail
    except RejectedRow as exc:
        return str(exc)
    return "its token counts are outdated: it can be rendered now; delete them"
