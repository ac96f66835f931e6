"""Converts the rows of a source to a shard set; resumable, and with the same bytes every time.

It makes the missing shards, stops if too many rows are rejected, and writes the manifest last.
Finished shards are remembered in `ocrdata.conversion.work_folder`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocrdata.conversion.comparison import ComparisonTask
from ocrdata.conversion.open_work import open_work
from ocrdata.conversion.options import KEEP, ConversionOptions
from ocrdata.conversion.rejects import (
    Reject,
    damaged_path,
    examples,
    reasons,
    rejects_path,
    report_path,
    write_damaged,
    write_lines,
    write_rejects,
)
from ocrdata.conversion.work_folder import (
    OnShards,
    ShardRecord,
    differences,
    input_state,
    only_input_changed,
)
from ocrdata.conversion.worker import ConversionReport, ConversionTask, consecutive
from ocrdata.errors import DiskError, OcrError, UsageError
from ocrdata.runtime.processes import run_in_processes
from ocrdata.runtime.progress import Progress
from ocrdata.runtime.units import human_bytes
from ocrdata.shards.manifest import Manifest, ShardInfo, read_manifest, shard_info, write_manifest
from ocrdata.sources.base import NotedSource, ReportingSource, SizedSource, Source
from ocrdata.storage.file import exists
from ocrdata.storage.files import free_bytes, make_folder
from ocrdata.storage.locks import Lock


def convert(
    source: Source,
    options: ConversionOptions,
    progress: Progress | None = None,
    *,
    on_shards: OnShards | None = None,
) -> Manifest:
    """Make the missing shards of a set and its manifest; in a complete set, replace lost files.

    Raises UsageError if the output has shards of another conversion or another process is writing
    it, SourceError, DiskError, and OcrError if too many rows are rejected. After any of these, the
    same call continues with the shards that are still missing.
    """
    with _Conversion(source, options, progress or Progress(), on_shards) as conversion:
        if conversion.finished is not None:
            return conversion.repair_all(conversion.finished)
        return conversion.make_all()


def convert_one(
    source: Source,
    options: ConversionOptions,
    shard: int,
    progress: Progress | None = None,
    *,
    on_shards: OnShards | None = None,
) -> ShardInfo:
    """Make one shard: a part of an unfinished set, or a replacement in a complete one.

    Raises as `convert` does, and OcrError if a replacement does not match the manifest.
    """
    with _Conversion(source, options, progress or Progress(), on_shards) as conversion:
        return conversion.make_one(shard)


class _Conversion:
    """A conversion in progress; holds the lock of its output."""

    def __init__(
        self,
        source: Source,
        options: ConversionOptions,
        progress: Progress,
        on_shards: OnShards | None,
    ) -> None:
        self.source, self.options, self.progress = source, options, progress
        self.out = options.out
        self.work = open_work(
            options.place, options.out, options.name, on_shards, options.commit_shards
        )
        self.place = self.work.place
        self.finished: Manifest | None = None
        self.rejects: list[Reject] = []

    def __enter__(self) -> _Conversion:
        name = self.options.name
        with ExitStack() as stack:
            make_folder(self.out)
            stack.callback(self.work.close)
            stack.enter_context(Lock(self.out / f".{name}.lock", f"shards {self.place / name}"))
            stack.callback(self._tidy)
            self.work.prepare()
            self._compare()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _tidy(self) -> None:
        self.progress.close()
        self.work.remove_leftovers()
        if self.finished is not None or self.work.has_no_shards():
            self.work.remove()

    def _compare(self) -> None:
        """Set the layout, and decide what becomes of shards that exist.

        Raises UsageError if they were made with other settings.
        """
        name = self.options.name
        known = self.work.recorded_provenance()
        changed = self._set_layout(known)
        if exists(self.work.manifest):
            if known is not None and changed:
                other = f"with other settings: {'; '.join(changed)}"
                if only_input_changed(known, self.provenance, self.source):
                    other = "from an input that has changed since"
                raise UsageError(
                    f"{self.place / name}: a complete set of this name was made {other}; choose "
                    "another --name or --out, or delete the set"
                )
            self.finished = read_manifest(self.work.manifest)
        elif known is not None and (changed or (touched := self._touched())):
            self._replace(known, changed, self.work.shards() if changed else touched)

    def _touched(self) -> list[int]:
        """The finished shards that were made from files which have changed since, at least in
        time."""
        return [
            shard
            for shard, record in self.work.read_records(self.work.shards()).items()
            if record and record.input_state != input_state(self.source, self.layout.span(shard))
        ]

    def _set_layout(self, known: Mapping[str, Any] | None) -> list[str]:
        """Set layout and provenance; returns how the provenance differs from the known one."""
        options = self.options
        own = {key: value for key, value in self.source.provenance.items() if key != "licence"}
        rows = None
        if known is not None and all(known.get(key) == value for key, value in own.items()):
            rows = known.get("rows")  # the same source has as many rows: no need to count them
        self.layout = options.layout(rows if isinstance(rows, int) else self.source.count())
        self.provenance: dict[str, Any] = {
            **own,
            "rows": self.layout.rows,
            "start": self.layout.start,
            "stop": self.layout.stop,
            "shard_samples": self.layout.shard_samples,
            **({"compress": options.compress} if options.compress else {}),
            **({"damaged_jpegs": options.damaged_jpegs} if options.damaged_jpegs != KEEP else {}),
            **({"command": options.command} if options.command else {}),
        }
        return [] if known is None else differences(known, self.provenance)

    def _is_empty(self, shard: int) -> bool:
        """Whether a finished shard holds no sample: all its rows were rejected."""
        record = self.work.read_record(shard)
        return record is not None and not record.shard.samples

    def _replace(
        self, known: Mapping[str, Any], changed: Sequence[str], suspects: Sequence[int]
    ) -> None:
        """Continue, with other settings, from what an unfinished conversion left.

        If only the input was edited, shards whose rows were all accepted and have not changed are
        kept; only the `suspects` are compared. Shards without a sample, as a wrong --answer leaves
        them, are discarded. Whatever else cannot be made again as it was needs --discard: raises
        UsageError.
        """
        existing, kept, again = self.work.shards(), list[int](), list[int]()
        edited = not changed or only_input_changed(known, self.provenance, self.source)
        if edited:
            kept, again = self._unchanged(suspects)
            kept = sorted({*kept, *(set(existing) - set(suspects))})
        stale = sorted(set(existing) - {*kept, *again})
        if not self.options.discard and not all(map(self._is_empty, stale)):
            place = f"{self.place / self.options.name}: an unfinished conversion of this name"
            remedy = "or choose another --name or --out"
            if edited:
                raise UsageError(
                    f"{place} has {len(existing):,} finished shards, and the input of "
                    f"{len(stale):,} of them, first of shard {stale[0]}, has changed since; add "
                    f"--discard to make these again, {remedy}"
                )
            raise UsageError(
                f"{place} has {len(existing):,} finished shards, made with other settings: "
                f"{'; '.join(changed)}; repeat its command to finish it, add --discard to remove "
                f"them, {remedy}"
            )
        if existing:
            self.progress.note(
                f"{self.options.name}: the {'input' if edited else 'settings'} changed; of "
                f"{len(existing):,} finished shards {len(kept):,} are kept, {len(again):,} made "
                f"again, {len(stale):,} discarded"
            )
        self.work.discard_shards(sorted(set(existing) - set(kept)))
        if kept:
            self._begin()  # last: a kill before it leads to the same decision again
        else:
            self.work.remove()

    def _unchanged(self, existing: Sequence[int]) -> tuple[list[int], list[int]]:
        """The existing shards to keep, and those to make again: unrecorded ones, and those that may
        gain rows but lose none."""
        records = self.work.read_records(existing)
        again = {shard for shard, record in records.items() if record is None}
        finished = {
            shard: record
            for shard, record in records.items()
            if record is not None and record.shard.file == self.layout.file(shard)
        }
        unchanged: list[int] = []
        task = ComparisonTask(self.source, self.layout, self.place)
        run_in_processes(task, list(finished), self.options.workers, unchanged.append)
        full = {
            shard
            for shard in unchanged
            if not finished[shard].rejects
            and finished[shard].shard.samples == len(self.layout.span(shard))
        }
        return sorted(full), sorted(again | (set(unchanged) - full))

    def make_all(self) -> Manifest:
        """Make the missing shards, then write rejects and manifest."""
        if self.work.provenance() is None:
            self._begin()
        records = self.work.read_records(self.layout.shards)
        pending = [shard for shard, record in records.items() if record is None]
        for record in records.values():
            self.rejects += record.rejects if record else ()
        self._check_free_space(pending)
        self._tell_notes(pending)
        total = self.layout.stop - self.layout.start
        missing = sum(len(self.layout.span(shard)) for shard in pending)
        self.progress.start(self.options.name, total, total - missing)
        self._check_rejects()
        run_in_processes(self._task(self.out), pending, self.options.workers, self._report)
        self._announce(self.layout.shards)
        self.finished = self._finish()
        return self.finished

    def _begin(self) -> None:
        licence = self.source.provenance.get("licence", "unknown")
        self.work.begin({**self.provenance, "licence": licence})

    def make_one(self, shard: int) -> ShardInfo:
        """Make one shard, see `convert_one`."""
        shards = self.layout.shards
        if shard not in shards:
            raise UsageError(
                f"--only {shard}: out of range; the shards are {shards[0]} to {shards[-1]}"
            )
        self._check_free_space([shard])
        self._tell_notes([shard])
        self.progress.start(self.options.name, len(self.layout.span(shard)), 0)
        if self.finished is not None:
            made = self._repair(shard, self.finished)
        else:
            if self.work.provenance() is None:
                self._begin()
            run_in_processes(self._task(self.out), [shard], 1, self._report)
            record = self.work.read_record(shard)
            assert record is not None
            made = record.shard
        self._announce([shard])
        return made

    def repair_all(self, manifest: Manifest) -> Manifest:
        """Replace the shards of a complete set that are missing, or whose size or index does not
        match the manifest. Payloads are not read: that is what tools/check_shards.py is for."""
        entries = {shard.file: shard for shard in manifest.shards}
        files = [self.layout.file(shard) for shard in self.layout.shards]
        damaged = self.work.broken([entries[file] for file in files])
        broken = [n for n, file in zip(self.layout.shards, files, strict=True) if file in damaged]
        if broken:
            self._check_free_space(broken)
            rows = sum(len(self.layout.span(shard)) for shard in broken)
            self.progress.start(self.options.name, rows, 0)
        for shard in broken:
            self._repair(shard, read_manifest(self.work.manifest))
        self._announce(self.layout.shards)
        return read_manifest(self.work.manifest)

    def _repair(self, shard: int, manifest: Manifest) -> ShardInfo:
        """Recreate a shard in the work folder; move it into place if it matches the manifest."""
        make_folder(self.work.path)
        run_in_processes(self._task(self.work.path), [shard], 1, self._report)
        file = self.layout.file(shard)
        made = self.work.path / file
        new = shard_info(made)
        old = next(entry for entry in manifest.shards if entry.file == file)
        # Another version of zstd may compress the same rows to other bytes.
        same_file = self.options.compress or new.digest == old.digest
        if new.rows_digest != old.rows_digest or not same_file:
            raise OcrError(
                f"{self.place / file}: the recreated shard does not match the manifest (digest "
                f"{new.digest}, the manifest has {old.digest}): the source has changed; nothing "
                "was replaced"
            )
        self.work.replace(made)
        if new != old:  # the same rows, written by another version of zstd or the Parquet library
            shards = tuple(new if entry == old else entry for entry in manifest.shards)
            totals = {**manifest.totals, "bytes": sum(shard.bytes for shard in shards)}
            self._write_manifest(replace(manifest, shards=shards, totals=totals))
        return new

    def _announce(self, shards: Sequence[int]) -> None:
        """Pass the paths of finished shards to `on_shards`, if they did not get there one by
        one."""
        self.progress.close()
        self.work.announce([self.layout.file(shard) for shard in shards])

    def _write_manifest(self, manifest: Manifest) -> None:
        path = self.out / self.work.manifest.name
        write_manifest(path, manifest)
        self.work.deliver(path)

    def _task(self, folder: Path) -> ConversionTask:
        return ConversionTask(
            self.source, self.layout, self.work, folder, self.options.damaged_jpegs
        )

    def _check_free_space(self, pending: Sequence[int]) -> None:
        """Raises DiskError if the disk cannot hold the pending shards."""
        if not isinstance(self.source, SizedSource):
            return
        spans = [self.layout.span(shard) for shard in pending]
        if not self.work.keeps_shards:
            spans = sorted(spans, key=len)[-self.options.workers :]
        need = sum(self.source.size(first.start, last.stop) for first, last in consecutive(spans))
        free = free_bytes(self.out)
        if need > free:
            raise DiskError(
                f"{self.out}: about {human_bytes(need)} are needed, {human_bytes(free)} are free; "
                "free some space, choose another --out, or convert fewer rows with --limit"
            )

    def _tell_notes(self, pending: Sequence[int]) -> None:
        """Say what of the source is left out, before the first row of a pending shard is read."""
        if pending and isinstance(self.source, NotedSource):
            for note in self.source.notes():
                self.progress.note(f"{self.source.name}: {note}")

    def _report(self, value: ConversionReport) -> None:
        self.progress.advance(value.rows, value.bytes)
        self.rejects += value.rejects
        if value.shard is not None:
            record = value.shard
            if self.finished is None:
                self.work.shard_done(record.file)
            self.progress.shard_done(
                f"{record.file}: {record.samples:,} samples, {human_bytes(record.bytes)}"
            )
        self._check_rejects()

    def _check_rejects(self) -> None:
        """Raises OcrError as soon as more rows are rejected than the whole set may have."""
        rows = self.layout.stop - self.layout.start
        if len(self.rejects) > self.options.max_reject_fraction * rows:
            kept = "no manifest was written; finished shards are kept"
            if self.finished is not None:
                kept = "the manifest and the intact shards are unchanged"
            raise OcrError(
                f"{self.options.name}: {len(self.rejects):,} of {rows:,} rows are rejected so far, "
                f"more than --max-reject-fraction {self.options.max_reject_fraction:g} allows: "
                f"{'; '.join(examples(self.rejects))}; {kept}: mend these rows or allow a larger "
                "fraction, and repeat the command"
            )

    def _finish(self) -> Manifest:
        """Write the rejects, then the manifest."""
        records = []
        for shard, record in self.work.read_records(self.layout.shards).items():
            if record is None:
                raise DiskError(
                    f"{self.place / self.layout.file(shard)} was changed while other shards were "
                    "being made; run the command again to recreate it"
                )
            records.append(record)
        rejects = [reject for record in records for reject in record.rejects]
        write_rejects(rejects_path(self.out, self.options.name), rejects)
        self.work.deliver(rejects_path(self.out, self.options.name))
        damaged = [damage for record in records for damage in record.damaged]
        write_damaged(damaged_path(self.out, self.options.name), damaged)
        self.work.deliver(damaged_path(self.out, self.options.name))
        if isinstance(self.source, ReportingSource):
            for report, lines in self.source.reports().items():
                path = report_path(self.out, self.options.name, report)
                write_lines(path, lines)
                self.work.deliver(path)
        rows = self.layout.stop - self.layout.start
        manifest = Manifest(
            name=self.options.name,
            shards=tuple(record.shard for record in records),
            licence=str(self.source.provenance.get("licence", "unknown")),
            provenance=self.provenance,
            totals={
                "rows": rows,
                "samples": sum(record.shard.samples for record in records),
                "images": sum(record.images for record in records),
                "turns": sum(record.turns for record in records),
                "bytes": sum(record.shard.bytes for record in records),
                "image_bytes": sum(record.image_bytes for record in records),
                "damaged_jpegs": len(damaged),
                **sum((Counter(record.noted) for record in records), Counter[str]()),
                **self._tar_bytes(records),
            },
            rejects={"rows": len(rejects), "reasons": reasons(rejects)},
        )
        self._write_manifest(manifest)
        return manifest

    def _tar_bytes(self, records: Sequence[ShardRecord]) -> dict[str, int]:
        """The uncompressed size, for compressed shards only."""
        if not self.options.compress:
            return {}
        return {"tar_bytes": sum(record.tar_bytes for record in records)}
