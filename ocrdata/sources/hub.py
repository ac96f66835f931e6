"""The Hugging Face hub: what a data set consists of at one commit, and ranges of its files.

Owner of everything that is asked of the hub, of retries, and of saying in one line why the hub
does not deliver. The data files of a config are resolved by `datasets`; their bytes are read in
ranges, so that nothing is ever kept on the disk but the hub's own small cache of the data set
card. `HF_ENDPOINT` names another hub, `HF_TOKEN` opens gated ones; neither is ever printed with
a token. The clients are imported on first use: they take two seconds, and `--help` needs none.
"""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ocrdata.errors import OcrError, SourceError, UsageError, first_line

TIMEOUT_S = 7.0
"""Seconds without a byte after which a request is given up."""

FIRST_WAIT_S = 0.5
CONTACT_RETRIES = 3
"""First contact: 4 tries with 0.5 + 1 + 2 s between them, 32 s at worst where nothing answers."""

READ_RETRIES = 5
"""In the middle of reading: 6 tries and 15.5 s between them, 58 s at worst. What is broken for
longer is told, and the conversion goes on from there when it is run again."""

BLOCK_BYTES = 256 << 10
"""Smaller reads than this fetch this much: the small columns of a row group lie side by side, and
each would be a request of its own (ten in FineVision, 100 ms each from afar)."""

CONTINUE = "run the same command again when it is back: what is done is kept"


@dataclass(frozen=True)
class DataFiles:
    """The Parquet files of one split of one config at one commit; `sizes` in bytes, by their
    paths in the repository."""

    repository: str
    commit: str
    licence: str
    sizes: Mapping[str, int]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files in the order of their rows."""
        return tuple(self.sizes)

    def open(self, path: str) -> RangeFile:
        """One of the files, for reading anywhere in it. Nothing is asked of the hub yet."""
        return RangeFile(self.repository, self.commit, path, self.sizes[path])


def resolve(repository: str, config: str | None, split: str, commit: str) -> DataFiles:
    """The data files of a config's split, as `datasets` finds them from the data set card.

    Raises UsageError for a config or split that is not there (it names near ones), SourceError
    where the hub does not deliver or the data are not Parquet.
    """
    # Asked first, with few retries: where the hub is not there `datasets` takes minutes to say so.
    _contact(repository, commit)
    import datasets
    from huggingface_hub import HfFileSystem

    datasets.disable_progress_bars()
    with _explain(repository):
        try:
            builder = datasets.load_dataset_builder(repository, config, revision=commit)
        except ValueError as exc:
            raise _config_error(repository, config, commit, exc) from exc
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
                f"{repository}: the {split} split is not Parquet files of this repository, "
                f"which is all that is read here (first other file: {(wrong or ['none'])[0]})"
            )
        files = HfFileSystem()
        root = prefix.removeprefix("hf://")
        sizes = {path: int(files.info(root + path)["size"]) for path in paths}
        return DataFiles(repository, commit, _licence(repository, commit), sizes)


def resolve_commit(repository: str, revision: str) -> str:
    """The 40-digit commit that a branch or tag names at this moment; a commit names itself."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    commit = _contact(repository, revision)
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise SourceError(f"{repository}: the hub gives no commit for revision {revision!r}")
    return commit


def _contact(repository: str, revision: str) -> str:
    """The commit of a revision, as the hub says it. Raises SourceError within half a minute."""
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/datasets/{repository}/revision/{quote(revision, safe='')}"
    with _explain(repository, revision):
        return str(_request(url, {}, CONTACT_RETRIES).json().get("sha"))


class RangeFile(io.RawIOBase):
    """One file of a data set repository, read in ranges, each of which is exact or an error."""

    def __init__(self, repository: str, commit: str, path: str, size: int) -> None:
        super().__init__()
        from huggingface_hub import hf_hub_url

        self._place = f"{repository}: {path}"
        self._repository, self._at = repository, 0
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
        """Move; nothing is asked of the hub."""
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
        with _explain(self._repository):
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            answer = _request(self._url, headers, READ_RETRIES)
            data: bytes = answer.content
        said = answer.headers.get("Content-Range", "")
        # A server may ignore Range and send another part, or all: never take that for the part.
        if answer.status_code != 206 or said != f"bytes {start}-{stop - 1}/{self.size}":
            raise SourceError(
                f"{self._place}: the server answers bytes {start}-{stop - 1} of {self.size} with "
                f"status {answer.status_code} and range {said!r}"
            )
        if len(data) != stop - start:
            raise SourceError(f"{self._place}: {len(data)} bytes came, {stop - start} were asked")
        return data


def _request(url: str, headers: Mapping[str, str], retries: int) -> Any:
    """GET with bounded retries; raises the client's own errors, see `_explain`."""
    from huggingface_hub.utils import (
        build_hf_headers,
        hf_raise_for_status,
        http_backoff,
        logging,
    )

    logging.set_verbosity_error()  # each retry would be a line or two
    # Compressed answers would have other lengths than the ranges asked.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **headers}
    answer = http_backoff(
        "GET",
        url,
        headers=headers,
        timeout=TIMEOUT_S,
        max_retries=retries,
        base_wait_time=FIRST_WAIT_S,
        follow_redirects=True,
    )
    hf_raise_for_status(answer)
    return answer


def _licence(repository: str, commit: str) -> str:
    """The licence in the data set card, "unknown" where it says none."""
    from huggingface_hub import DatasetCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = hf_hub_download(repository, "README.md", repo_type="dataset", revision=commit)
    except EntryNotFoundError:
        return "unknown"
    licence = DatasetCard.load(path).data.to_dict().get("license") or "unknown"
    return licence if isinstance(licence, str) else ", ".join(map(str, licence))


def _config_error(
    repository: str, config: str | None, commit: str, exc: ValueError
) -> OcrError | ValueError:
    """What to say of a config that `datasets` refuses; `exc` itself where that is not it."""
    import datasets

    names = sorted(datasets.get_dataset_config_names(repository, revision=commit))
    if config in names:
        return exc
    if config is None:
        return UsageError(f"{repository}: say which of its configs: {_listed(names)}")
    near = difflib.get_close_matches(config, names, n=5, cutoff=0.4)
    near += [name for name in names if config.lower() in name.lower() and name not in near][:5]
    hint = f"near names: {', '.join(near)}" if near else f"it has {_listed(names)}"
    return UsageError(f"{repository} has no subset {config!r}; {hint}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"


_CLIENTS = {"httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "datasets"}


@contextmanager
def _explain(repository: str, revision: str = "") -> Iterator[None]:
    """Turn what the clients raise into one SourceError of one line, without URLs or headers."""
    try:
        yield
    except OcrError:
        raise
    except Exception as exc:
        chain = list(_chain(exc))
        if not any(_foreign(one) for one in chain):
            raise
        raise SourceError(_one_line(chain, repository, revision)) from exc


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _foreign(exc: BaseException) -> bool:
    module = type(exc).__module__.partition(".")[0]
    return module in _CLIENTS or isinstance(exc, (ConnectionError, TimeoutError))


def _one_line(chain: list[BaseException], repository: str, revision: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    endpoint = constants.ENDPOINT
    for exc in chain:
        if isinstance(exc, hub.OfflineModeIsEnabled):
            return f"{repository}: the hub is switched off by HF_HUB_OFFLINE; unset it"
        if isinstance(exc, hub.GatedRepoError):
            return f"{repository} is gated: ask for access on {endpoint} and set HF_TOKEN"
        if isinstance(exc, hub.RevisionNotFoundError):
            return f"{repository} has no revision {revision or 'of this commit'} on {endpoint}"
        if isinstance(exc, hub.RepositoryNotFoundError):
            return f"{repository}: no such data set on {endpoint}, or it is private (set HF_TOKEN)"
    for exc in chain:
        status = getattr(getattr(exc, "response", None), "status_code", None)
        if isinstance(status, int):
            return f"{repository}: the hub {endpoint} answers with status {status}; {CONTINUE}"
    codes = [exc.errno for exc in chain if isinstance(exc, OSError) and exc.errno]
    if codes and codes[-1] in errno.errorcode:
        reason = os.strerror(codes[-1])
    else:
        reason = first_line(chain[-1])
    return f"{repository}: the hub {endpoint} is not responding ({reason}); {CONTINUE}"
