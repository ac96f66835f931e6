"""Data sets on the Hugging Face hub: what one consists of at one commit, and ranges of its files.

The data files of a config are resolved by `datasets`; their bytes are read in ranges, so that
nothing is kept on the disk but the hub's own small cache of the data set card. Requests, retries
and error messages are those of `ocrdata.storage.hub_client`.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ocrdata.errors import SourceError, UsageError
from ocrdata.storage.hub_client import READ_RETRIES, explain, repository_info, request

BLOCK_BYTES = 256 << 10
"""Smaller reads fetch this much: the small columns of a row group are next to each other, and each
would be a request of its own (FineVision has ten, 100 ms each over the internet)."""


@dataclass(frozen=True)
class DataFiles:
    """The Parquet files of one split of one config at one commit; `sizes` are in bytes, by path in
    the repository."""

    repository: str
    commit: str
    licence: str
    sizes: Mapping[str, int]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files in the order of their rows."""
        return tuple(self.sizes)

    def open(self, path: str) -> RangeFile:
        """One of the files, for random access. The hub is not contacted before the first read."""
        return RangeFile(self.repository, self.commit, path, self.sizes[path])


def resolve(repository: str, config: str | None, split: str, commit: str) -> DataFiles:
    """The data files of a config's split, as `datasets` finds them from the data set card.

    Raises UsageError for an unknown config or split (it names similar ones), SourceError if the hub
    fails or the data are not Parquet.
    """
    # First, with few retries: without a hub `datasets` takes minutes to fail.
    repository_info(repository, commit, "data set")
    import datasets
    from huggingface_hub import HfFileSystem

    datasets.disable_progress_bars()
    with explain(repository, commit, "data set"):
        try:
            builder = datasets.load_dataset_builder(repository, config, revision=commit)
        except ValueError as exc:
            error = _config_error(repository, config, commit)
            if error is None:
                raise
            raise error from exc
        found = builder.config.data_files or {}
        if split not in found:
            raise UsageError(
                f"{repository} has no split {split!r} in config {builder.config.name!r}; "
                f"it has {', '.join(sorted(map(str, found))) or 'none'}"
            )
        prefix = f"hf://datasets/{repository}@{commit}/"
        paths = tuple(str(url).removeprefix(prefix) for url in found[split])
        wrong = [path for path in paths if not path.endswith(".parquet") or "://" in path]
        if wrong or not paths:
            raise SourceError(
                f"{repository}: the {split} split is not stored as Parquet files in this "
                "repository; no other format can be read "
                f"(first other file: {(wrong or ['none'])[0]})"
            )
        files = HfFileSystem()
        root = prefix.removeprefix("hf://")
        sizes = {path: int(files.info(root + path)["size"]) for path in paths}
        return DataFiles(repository, commit, _licence(repository, commit), sizes)


def resolve_commit(repository: str, revision: str) -> str:
    """The 40-digit commit that a branch or tag points to now; a commit is returned unchanged."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    commit = str(repository_info(repository, revision, "data set").get("sha"))
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise SourceError(f"{repository}: the hub returned no commit for revision {revision!r}")
    return commit


class RangeFile(io.RawIOBase):
    """One file of a data set repository, read in ranges: exact bytes, or a SourceError."""

    def __init__(self, repository: str, commit: str, path: str, size: int) -> None:
        super().__init__()
        from huggingface_hub import hf_hub_url

        self._place = f"{repository}: {path}"
        self._repository, self._commit, self._at = repository, commit, 0
        self._url = hf_hub_url(repository, path, repo_type="dataset", revision=commit)
        self.size = size
        self._block, self._block_start = b"", 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, without contacting the hub."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only at the end. Raises SourceError."""
        rest = max(0, self.size - self._at)
        size = rest if size is None or size < 0 else min(size, rest)
        if not size:
            return b""
        start, self._at = self._at, self._at + size
        inside = start - self._block_start
        if not 0 <= inside <= inside + size <= len(self._block):
            if size >= BLOCK_BYTES:
                return self._range(start, start + size)
            self._block = self._range(start, min(start + BLOCK_BYTES, self.size))
            self._block_start, inside = start, 0
        return self._block[inside : inside + size]

    def _range(self, start: int, stop: int) -> bytes:
        with explain(self._repository, self._commit, "data set"):
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            answer = request(self._url, headers, READ_RETRIES)
            data: bytes = answer.content
        said = answer.headers.get("Content-Range", "")
        # A server may ignore Range and send another part of the file, or all of it.
        if answer.status_code != 206 or said != f"bytes {start}-{stop - 1}/{self.size}":
            raise SourceError(
                f"{self._place}: requested bytes {start}-{stop - 1} of {self.size}, got status "
                f"{answer.status_code} and range {said!r}"
            )
        if len(data) != stop - start:
            raise SourceError(
                f"{self._place}: received {len(data)} bytes, {stop - start} were requested"
            )
        return data


def _licence(repository: str, commit: str) -> str:
    """The licence in the data set card, or "unknown"."""
    from huggingface_hub import DatasetCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = hf_hub_download(repository, "README.md", repo_type="dataset", revision=commit)
    except EntryNotFoundError:
        return "unknown"
    licence = DatasetCard.load(path).data.to_dict().get("license") or "unknown"
    return licence if isinstance(licence, str) else ", ".join(map(str, licence))


def _config_error(repository: str, config: str | None, commit: str) -> UsageError | None:
    """The error for a config that `datasets` refuses; None if the config exists."""
    import datasets

    names = sorted(datasets.get_dataset_config_names(repository, revision=commit))
    if config in names:
        return None
    if config is None:
        return UsageError(f"{repository}: choose one of its configs: {_listed(names)}")
    near = difflib.get_close_matches(config, names, n=5, cutoff=0.4)
    near += [name for name in names if config.lower() in name.lower() and name not in near][:5]
    hint = f"similar names: {', '.join(near)}" if near else f"it has {_listed(names)}"
    return UsageError(f"{repository} has no subset {config!r}; {hint}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"
