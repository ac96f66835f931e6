"""The conversion: a source's rows become shards, resumably and with the same bytes every time.

Owner of the way from rows to a complete shard set: what is done already, how many rows may be
rejected, and that the manifest comes last. What it was doing when it was killed is in
`ocrdata.conversion.work_folder`; the processes are in `ocrdata.runtime.processes`. It knows nothing
of where rows come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocrdata.conversion.options import ConversionOptions
from ocrdata.conversion.rejects import Reject, examples, reasons, rejects_path, write_rejects
from ocrdata.conversion.work_folder import ShardRecord, WorkFolder, differences, recorded_provenance
from ocrdata.conversion.worker import ConversionReport, ConversionTask, neighbours
from ocrdata.errors import DiskError, OcrError, ShardError, UsageError
from ocrdata.runtime.processes import run_in_processes
from ocrdata.runtime.progress import Progress
from ocrdata.runtime.units import human_bytes
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import Manifest, ShardInfo, read_manifest, shard_info, write_manifest
from ocrdata.sources.base import SizedSource, Source
from ocrdata.storage.files import explain_disk, free_bytes, fsync_folder, make_folder
from ocrdata.storage.locks import Lock

OnShards = Callable[[Sequence[Path]], None]
"""Called with the paths of finished shards, before the manifest that lists them is written."""


def convert(
    source: Source,
    options: ConversionOptions,
    progress: Progress | None = None,
    *,
    on_shards: OnShards | None = None,
) -> Manifest:
    """Make the whole shard set, or what is missing of it, and its manifest.

    Of a complete set what was lost since is made again, the rest left alone. Raises UsageError
    where shards of that name were made of something else or another process is at it, SourceError,
    DiskError, and OcrError where too many rows are rejected; whatever it raises, the same call goes
    on from there.
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
    """Make one shard alone: anew in a complete set, where it must be what the manifest says, or as
    a part of a set to come. Raises as `convert` does, and OcrError where it is not."""
    with _Conversion(source, options, progress or Progress(), on_shards) as conversion:
        return conversion.make_one(shard)


class _Conversion:
    """One run, while it holds the output's lock."""

    def __init__(
        self,
        source: Source,
        options: ConversionOptions,
        progress: Progress,
        on_shards: OnShards | None,
    ) -> None:
        self.source, self.options, self.progress = source, options, progress
        self.on_shards = on_shards
        self.out = options.out
        self.work = WorkFolder(self.out, options.name)
        self.manifest_path = self.out / f"{options.name}.json"
        self.finished: Manifest | None = None
        self.rejects: list[Reject] = []

    def __enter__(self) -> _Conversion:
        name = self.options.name
        with ExitStack() as stack:
            make_folder(self.out)
            stack.enter_context(Lock(self.out / f".{name}.lock", f"shards {self.out / name}"))
            stack.callback(self._tidy)
            self.work.wait_for_orphans()
            self.work.remove_leftovers()
            self._compare()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _tidy(self) -> None:
        self.progress.close()
        self.work.remove_leftovers()
        if self.finished is not None:
            self.work.remove()

    def _compare(self) -> None:
        """Fix the layout, and refuse to mix with shards that were made otherwise."""
        options = self.options
        known = recorded_provenance(self.out, options.name)
        other = self._lay_out(known)
        if other and self.work.made_nothing():  # it binds nobody
            self.work.remove()
            other = self._lay_out(None)
        if other:
            raise UsageError(
                f"{self.out / options.name}: the shards there are of another conversion: "
                f"{'; '.join(other)}; remove them with {self.work.path}, or choose another "
                "--name or --out"
            )
        if self.manifest_path.exists():
            self.finished = read_manifest(self.manifest_path)

    def _lay_out(self, known: Mapping[str, Any] | None) -> list[str]:
        """Fix layout and provenance; what the latter differs in from what is known."""
        options = self.options
        rows = None if known is None else known.get("rows")
        self.layout = options.layout(rows if isinstance(rows, int) else self.source.count())
        self.provenance: dict[str, Any] = {
            **{key: value for key, value in self.source.provenance.items() if key != "licence"},
            "rows": self.layout.rows,
            "start": self.layout.start,
            "stop": self.layout.stop,
            "shard_samples": self.layout.shard_samples,
            **({"compress": options.compress} if options.compress else {}),
            **({"command": options.command} if options.command else {}),
        }
        return [] if known is None else differences(known, self.provenance)

    def make_all(self) -> Manifest:
        """Make the shards that are missing, then rejects and manifest."""
        if self.work.provenance() is None:
            self._begin()
        records = {shard: self.work.read_record(shard) for shard in self.layout.shards}
        pending = [shard for shard, record in records.items() if record is None]
        for record in records.values():
            self.rejects += record.rejects if record else ()
        self._check_room(pending)
        total = self.layout.stop - self.layout.start
        missing = sum(len(self.layout.span(shard)) for shard in pending)
        self.progress.start(self.options.name, total, total - missing)
        self._check_rejects()
        run_in_processes(self._task(self.out), pending, self.options.workers, self._report)
        self._hand_over(self.layout.shards)
        self.finished = self._finish()
        return self.finished

    def _begin(self) -> None:
        licence = self.source.provenance.get("licence", "unknown")
        self.work.begin({**self.provenance, "licence": licence})

    def make_one(self, shard: int) -> ShardInfo:
        """Make one shard, see `convert_one`."""
        shards = self.layout.shards
        if shard not in shards:
            raise UsageError(f"--only {shard}: the shards are {shards[0]} to {shards[-1]}")
        self._check_room([shard])
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
        self._hand_over([shard])
        return made

    def repair_all(self, manifest: Manifest) -> Manifest:
        """Make again the shards of a complete set that are gone, or not those of its manifest by
        size and index; payloads are not read (tools/check_shards.py does)."""
        broken = [shard for shard in self.layout.shards if not self._is_whole(shard, manifest)]
        if broken:
            self._check_room(broken)
            rows = sum(len(self.layout.span(shard)) for shard in broken)
            self.progress.start(self.options.name, rows, 0)
        for shard in broken:
            self._repair(shard, read_manifest(self.manifest_path))
        self._hand_over(self.layout.shards)
        return read_manifest(self.manifest_path)

    def _is_whole(self, shard: int, manifest: Manifest) -> bool:
        file = self.layout.file(shard)
        said = next(entry for entry in manifest.shards if entry.file == file)
        try:
            found = shard_info(self.out / file)
        except ShardError:
            return False
        # An index made again by another version of the Parquet library has other bytes.
        return replace(found, index_digest=said.index_digest) == said

    def _repair(self, shard: int, manifest: Manifest) -> ShardInfo:
        """Make a shard of a complete set aside, and put it in place if it is the same again."""
        make_folder(self.work.path)
        run_in_processes(self._task(self.work.path), [shard], 1, self._report)
        file = self.layout.file(shard)
        made = self.work.path / file
        new = shard_info(made)
        old = next(entry for entry in manifest.shards if entry.file == file)
        # Rows that are the same may be compressed to other bytes by another version of zstd.
        same_file = self.options.compress or new.digest == old.digest
        if new.rows_digest != old.rows_digest or not same_file:
            raise OcrError(
                f"{self.out / file}: made again it is not what the manifest says (digest "
                f"{new.digest}, the manifest has {old.digest}): the source has changed; nothing "
                "was replaced"
            )
        with explain_disk(self.out):
            index_path(self.out / file).unlink(missing_ok=True)
            made.rename(self.out / file)
            index_path(made).rename(index_path(self.out / file))
            fsync_folder(self.out)
        if new != old:  # the same rows, made by another version of zstd or the Parquet library
            shards = tuple(new if entry == old else entry for entry in manifest.shards)
            totals = {**manifest.totals, "bytes": sum(shard.bytes for shard in shards)}
            write_manifest(self.manifest_path, replace(manifest, shards=shards, totals=totals))
        return new

    def _hand_over(self, shards: Sequence[int]) -> None:
        """Tell the caller which shards are finished."""
        if self.on_shards is not None:
            self.progress.close()
            self.on_shards([self.out / self.layout.file(shard) for shard in shards])

    def _task(self, folder: Path) -> ConversionTask:
        return ConversionTask(self.source, self.layout, self.work, folder)

    def _check_room(self, pending: Sequence[int]) -> None:
        """Refuse before the start what the disk cannot hold. Raises DiskError."""
        if not isinstance(self.source, SizedSource):
            return
        spans = [self.layout.span(shard) for shard in pending]
        need = sum(self.source.size(first.start, last.stop) for first, last in neighbours(spans))
        free = free_bytes(self.out)
        if need > free:
            raise DiskError(
                f"{self.out}: about {human_bytes(need)} are needed, {human_bytes(free)} are free; "
                "free some, choose another --out, or take fewer rows with --limit"
            )

    def _report(self, value: ConversionReport) -> None:
        self.progress.advance(value.rows, value.bytes)
        self.rejects += value.rejects
        if value.shard is not None:
            record = value.shard
            self.progress.shard_done(
                f"{record.file}: {record.samples:,} samples, {human_bytes(record.bytes)}"
            )
        self._check_rejects()

    def _check_rejects(self) -> None:
        """Raises OcrError as soon as it is certain that too many rows are rejected."""
        rows = self.layout.stop - self.layout.start
        if len(self.rejects) > self.options.max_reject_fraction * rows:
            raise OcrError(
                f"{self.options.name}: {len(self.rejects):,} of {rows:,} rows are rejected by now, "
                f"more than --max-reject-fraction {self.options.max_reject_fraction:g}: "
                f"{'; '.join(examples(self.rejects))}; no manifest is written, finished shards "
                "are kept for a run with a larger fraction"
            )

    def _finish(self) -> Manifest:
        """Rejects first, the manifest last."""
        records = []
        for shard in self.layout.shards:
            record = self.work.read_record(shard)
            if record is None:
                raise DiskError(
                    f"{self.out / self.layout.file(shard)} was changed while the others were "
                    "being made; run again to make it anew"
                )
            records.append(record)
        rejects = [reject for record in records for reject in record.rejects]
        write_rejects(rejects_path(self.out, self.options.name), rejects)
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
                **self._tar_bytes(records),
            },
            rejects={"rows": len(rejects), "reasons": reasons(rejects)},
        )
        write_manifest(self.manifest_path, manifest)
        return manifest

    def _tar_bytes(self, records: Sequence[ShardRecord]) -> dict[str, int]:
        """What compressed shards are uncompressed; of plain ones "bytes" says it."""
        if not self.options.compress:
            return {}
        return {"tar_bytes": sum(record.tar_bytes for record in records)}
