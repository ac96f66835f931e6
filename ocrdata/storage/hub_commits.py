"""Writes files to data set repositories of the hub, by commits of its own client.

The bytes of large files are sent first (`send`), so that they need not stay on the disk, and become
visible with a commit that names them (`commit`): what was sent can be committed by another process
later. Small files are part of their commit. The bytes go over the LFS path or, where hf_xet is
installed and not switched off (HF_HUB_DISABLE_XET=1), over Xet.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ocrdata.errors import UnreachableError, UsageError
from ocrdata.storage.hub_client import explain
from ocrdata.storage.hub_urls import HubFile, forget_all, hub_file
from ocrdata.storage.location import Location

GIVE_UP_S = 20.0
"""Seconds after which the next failed attempt is the last; the client's own retries of one may take
23 s."""

FIRST_WAIT_S = 0.5
"""Before the second attempt, then doubled."""

ASKED_AT_ONCE = 500
"""Files in one question about their state."""

SENT_AT_ONCE = 100
"""Files in one question about their bytes."""

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class HubBlob(NamedTuple):
    """The bytes of a file: their size, and SHA-256 of a large file (`large`), else git's digest."""

    size: int
    version: str
    large: bool = True


def git_blob(data: bytes) -> HubBlob:
    """What the hub says of a small file with these bytes."""
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return HubBlob(len(data), digest.hexdigest(), large=False)


def repository_of(folder: Location) -> HubFile:
    """The repository and branch of a folder, and the folder in it. Raises SpecError."""
    found = hub_file(folder / "x")
    return found._replace(path=found.path.removesuffix("x"))


def create_repository(folder: Location) -> None:
    """Create the repository of a folder, private, if there is none. Raises SourceError."""
    place = repository_of(folder)
    _ask(place, lambda api: api.create_repo(
        place.repository, repo_type="dataset", private=True, exist_ok=True))  # fmt: skip


def found_in(folder: Location, names: Sequence[str]) -> dict[str, HubBlob]:
    """What is in a folder now of the files with these names. Raises SourceError."""
    place, found = repository_of(folder), {}
    for start in range(0, len(names), ASKED_AT_ONCE):
        paths = [place.path + name for name in names[start : start + ASKED_AT_ONCE]]

        def ask(api: Any, paths: list[str] = paths) -> Any:
            return api.get_paths_info(
                place.repository, paths, revision=place.revision or None, repo_type="dataset"
            )

        for entry in _ask(place, ask):
            version = entry.lfs.sha256 if entry.lfs else entry.blob_id
            name = entry.path.removeprefix(place.path)
            found[name] = HubBlob(entry.size, version, bool(entry.lfs))
    return found


def send(folder: Location, paths: Sequence[Path]) -> dict[str, HubBlob | None]:
    """Send the bytes of files that are to be committed to a folder; None for a small file, whose
    bytes are sent with its commit. Raises SourceError."""
    from huggingface_hub import CommitOperationAdd

    place = repository_of(folder)
    additions = [CommitOperationAdd(place.path + path.name, path) for path in paths]
    _ask(place, lambda api: api.preupload_lfs_files(
        place.repository, additions, repo_type="dataset", revision=place.revision or None,
        num_threads=1, free_memory=False))  # fmt: skip
    return {
        path.name: HubBlob(one.upload_info.size, one.upload_info.sha256.hex())
        if one._is_uploaded
        else None
        for path, one in zip(paths, additions, strict=True)
    }


def not_sent(folder: Location, blobs: Sequence[HubBlob]) -> set[HubBlob]:
    """Those of large files that the hub does not have, or no longer. Raises SourceError."""
    from huggingface_hub.lfs import UploadInfo, post_lfs_batch_info

    place, missing = repository_of(folder), set()
    for start in range(0, len(blobs), SENT_AT_ONCE):
        part = {blob.version: blob for blob in blobs[start : start + SENT_AT_ONCE]}
        infos = [_upload_info(blob, UploadInfo) for blob in part.values()]

        def ask(_: Any, infos: list[Any] = infos) -> Any:
            return post_lfs_batch_info(
                infos, None, "dataset", place.repository, place.revision or None
            )

        # A batch names actions for what is to be uploaded only.
        missing |= {part[one["oid"]] for one in _ask(place, ask)[0] if one.get("actions")}
    return missing


def _upload_info(blob: HubBlob, kind: Any) -> Any:
    return kind(size=blob.size, sample=b"", sha256=bytes.fromhex(blob.version))


def commit(
    folder: Location,
    files: Mapping[str, HubBlob | bytes | Path],
    message: str,
    *,
    deleted: Sequence[str] = (),
) -> None:
    """Commit files to a folder: large ones that were sent, and others with their bytes; and remove
    `deleted`, which must be there. Raises SourceError."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.lfs import UploadInfo

    place = repository_of(folder)

    def operations() -> list[Any]:
        made: list[Any] = [CommitOperationDelete(place.path + name) for name in deleted]
        for name, content in files.items():
            if isinstance(content, HubBlob):
                sent = CommitOperationAdd(place.path + name, b"")
                sent.upload_info = _upload_info(content, UploadInfo)
                # As preupload_lfs_files leaves it; it may have been sent by another process.
                sent._upload_mode, sent._is_uploaded = "lfs", True
                made.append(sent)
            else:
                made.append(CommitOperationAdd(place.path + name, content))
        return made

    _ask(place, lambda api: api.create_commit(
        place.repository, operations(), commit_message=message, repo_type="dataset",
        revision=place.revision or None))  # fmt: skip
    forget_all()


def _ask(place: HubFile, request: Callable[[Any], Result]) -> Result:
    """The result of a request, tried again where the hub does not answer now. Raises
    SourceError."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()
    disable_progress_bars()
    api, wait, began = HfApi(endpoint=constants.ENDPOINT), FIRST_WAIT_S, time.monotonic()
    while True:
        try:
            with explain(place.repository, place.revision, "data set"):
                return request(api)
        except UnreachableError as exc:
            if time.monotonic() - began > GIVE_UP_S:
                raise
            _log.warning("%s; trying again", str(exc).partition(";")[0])
            time.sleep(wait)  # the hub may be busy: twice as long each time, until GIVE_UP_S
            wait *= 2


def check_folder(folder: Location) -> None:
    """Raise UsageError unless a URL is a folder of a branch that can be written."""
    place = repository_of(folder)
    if len(place.revision) == 40 and all(c in "0123456789abcdef" for c in place.revision):
        raise UsageError(
            f"{folder}: a commit cannot be written to; name a branch, or none for main"
        )
