"""What every source on the hub shares: pinned at one commit, read through row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Sample
from ocrdata.sources.base import ROW_BYTES, attempt
from ocrdata.sources.hub import DataFiles, resolve, resolve_commit
from ocrdata.sources.parquet import ParquetRows

PROVENANCE = ("format", "repository", "revision", "commit", "config", "split", "licence")


@dataclass(frozen=True)
class Request:
    """What was asked for on the hub. `revision` is a branch, a tag or a commit."""

    repository: str
    config: str | None
    split: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if self.repository.count("/") != 1 or not all(self.repository.split("/")):
            raise UsageError(f"repository {self.repository!r}: written as OWNER/NAME")

    def is_that_of(self, recorded: Mapping[str, Any]) -> bool:
        """Whether an earlier conversion's provenance answers this request."""
        return (
            recorded.get("repository") == self.repository
            and recorded.get("config") == self.config
            and recorded.get("split") == self.split
            and self.revision in (recorded.get("revision"), recorded.get("commit"))
        )


class RowFormat(Protocol):
    """How a row of some repository becomes a sample."""

    @property
    def format(self) -> str:
        """Which schema this reads, for the provenance."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns without which a file is something else."""

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow."""


class HubSource:
    """The rows of one split of one config of a data set repository.

    `recorded` is the provenance of an earlier conversion to continue or to compare with: where it
    answers the same request its commit is kept, whatever the branch points to by now, and the hub
    is asked nothing before rows are needed.
    """

    def __init__(
        self, name: str, request: Request, form: RowFormat, *, recorded: Mapping[str, Any]
    ) -> None:
        self.name, self.request, self._form = name, request, form
        self._table: ParquetRows | None = None
        if request.is_that_of(recorded):
            self.provenance = {name: recorded.get(name) for name in PROVENANCE}
        else:
            commit = resolve_commit(request.repository, request.revision)
            files = self._files(commit)
            self.provenance = {
                "format": form.format,
                "repository": request.repository,
                "revision": request.revision,
                "commit": commit,
                "config": request.config,
                "split": request.split,
                "licence": files.licence,
            }

    def _files(self, commit: str) -> DataFiles:
        asked = self.request
        files = resolve(asked.repository, asked.config, asked.split, commit)
        self._table = ParquetRows(files, self._form.needed)
        return files

    @property
    def table(self) -> ParquetRows:
        """The rows; the hub is asked for the list of files the first time."""
        if self._table is None:
            self._files(str(self.provenance["commit"]))
        assert self._table is not None
        return self._table

    def count(self) -> int:
        """Rows in the split, from the footers of its files."""
        return self.table.count()

    def size(self, start: int, stop: int) -> int:
        """Bytes in shards: the values and what a tar adds to them."""
        return self.table.size(start, stop) + (stop - start) * ROW_BYTES

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; no row group before that of `start` is read."""
        return attempt(self.table.rows(start, stop), self._form)
