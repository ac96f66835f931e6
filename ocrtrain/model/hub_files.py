"""Files of a model repository of the hub, or of a folder that holds the same files.

A source is `owner/name`, `owner/name@revision` (a branch, tag or commit), or a folder. Fetched
files stay in the hub's cache and are used when the hub cannot be reached; that is known within half
a minute (`ocrdata.storage.hub_client`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ocrdata.errors import SourceError, UnreachableError, UsageError
from ocrdata.storage.hub_client import TIMEOUT_S, explain, repository_info

Choose = Callable[[Sequence[str]], list[str]]
"""Picks from the file names of a source; [] where none fits."""


def fetch(source: str, choose: Choose, *, needed: str = "the files asked for") -> list[Path]:
    """Local paths of the files that `choose` picks from a source's file names, in its order.

    Raises UsageError where `source` is neither a folder nor a possible repository, SourceError
    where it cannot be fetched or nothing is picked; `needed` names what is missing then.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        paths = _pick(folder, choose)
    elif source.startswith((".", "/", "~")):
        raise UsageError(f"{source}: no such folder")
    else:
        paths = _fetch_from_hub(source, choose)
    if not paths:
        raise SourceError(f"{source}: missing {needed}")
    return paths


def _pick(folder: Path, choose: Choose) -> list[Path]:
    return [folder / name for name in choose(sorted(path.name for path in folder.iterdir()))]


def _fetch_from_hub(source: str, choose: Choose) -> list[Path]:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository, _, pinned = source.partition("@")
    revision = pinned or None
    try:
        validate_repo_id(repository)
    except HFValidationError as exc:
        raise UsageError(f"{source}: neither a folder nor a repository name") from exc
    try:
        files = repository_info(repository, pinned, "model").get("siblings") or []
        with explain(repository, pinned, "model"):
            # By the revision given, not its commit: offline, the cache is searched by the
            # revision given.
            return [
                Path(hf_hub_download(repository, name, revision=revision, etag_timeout=TIMEOUT_S))
                for name in choose([str(file["rfilename"]) for file in files])
            ]
    except UnreachableError as exc:
        try:
            cached = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except OSError:
            raise SourceError(
                f"{exc}, and nothing is cached; name a local folder, or use --init random"
            ) from exc
        return _pick(cached, choose)
    except OSError as exc:  # a full disk, a folder without permission
        raise SourceError(f"{source}: cannot be stored in the hub's cache: {exc}") from exc
