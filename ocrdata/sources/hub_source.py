"""Sources on the hub: pinned to one commit, and read row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Sample
from ocrdata.sources.base import ROW_BYTES, attempt
from ocrdata.sources.hub import DataFiles, resolve, resolve_commit
from ocrdata.sources.parquet import ParquetRows
from ocrdata.sources.shapes import Shape

PROVENANCE = ("format", "repository", "revision", "commit", "config", "split", "licence")


@dataclass(frozen=True)
class Request:
    """A split of a data set on the hub. `revision` is a branch, a tag or a commit."""

    repository: str
    config: str | None
    split: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if self.repository.count("/") != 1 or not all(self.repository.split("/")):
            raise UsageError(f"repository {self.repository!r} is invalid; it is OWNER/NAME")

    def matches(self, recorded: Mapping[str, Any]) -> bool:
        """Whether this is what an earlier conversion, by its provenance, converted."""
        return (
            recorded.get("repository") == self.repository
            and recorded.get("config") == self.config
            and recorded.get("split") == self.split
            and self.revision in (recorded.get("revision"), recorded.get("commit"))
        )


class RowFormat(Protocol):
    """Converts a row of some repository to a sample."""

    @property
    def format(self) -> str:
        """Name of the schema, for the provenance."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The columns it reads, and what each has to be."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that must exist."""

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow."""


class HubSource:
    """The rows of one split of one config of a data set repository.

    `recorded` is the provenance of an earlier conversion to continue, or {}: if its request was the
    same, its commit is kept, even if the branch has moved on, and the hub is not contacted before
    rows are read.
    """

    def __init__(
        self, name: str, request: Request, form: RowFormat, *, recorded: Mapping[str, Any]
    ) -> None:
        self.name, self.request, self._form = name, request, form
        self._table: ParquetRows | None = None
        if request.matches(recorded):
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
        request = self.request
        files = resolve(request.repository, request.config, request.split, commit)
        self._table = ParquetRows(files, self._form.shapes, self._form.needed)
        return files

    @property
    def table(self) -> ParquetRows:
        """The rows; the first access asks the hub for the list of files."""
        if self._table is None:
            self._files(str(self.provenance["commit"]))
        assert self._table is not None
        return self._table

    def count(self) -> int:
        """Number of rows in the split, from the footers of its files."""
        return self.table.count()

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards: the values and what a tar adds to them."""
        return self.table.size(start, stop) + (stop - start) * ROW_BYTES

    def notes(self) -> list[str]:
        """See `NotedSource`."""
        return self.table.notes()

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; no row group before that of `start` is read."""
        return attempt(self.table.rows(start, stop), self._form)
