"""Files of a repository of the hub, or of a folder that holds the same.

Owner of fetching. A source is `owner/name`, `owner/name@revision` (a branch, tag or commit), or a
folder. What was fetched stays in the hub's cache and is taken from there when the hub cannot be
reached, which is told within a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ocrdata.errors import SourceError, UsageError

TIMEOUT = 20.0  # seconds to wait for the hub's first answer

Choose = Callable[[Sequence[str]], list[str]]
"""Picks from the names of a source; [] where none will do."""


def fetch(source: str, choose: Choose, *, needed: str = "what is looked for") -> list[Path]:
    """Local paths of the files `choose` picks from the names a source holds, in its order.

    Raises UsageError where `source` can name nothing, SourceError where it cannot be had or
    nothing is picked; `needed` says what should have been there.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        paths = _pick(folder, choose)
    elif source.startswith((".", "/", "~")):
        raise UsageError(f"{source}: no such folder")
    else:
        paths = _fetch_from_hub(source, choose)
    if not paths:
        raise SourceError(f"{source}: holds nothing of what is needed: {needed}")
    return paths


def _pick(folder: Path, choose: Choose) -> list[Path]:
    return [folder / name for name in choose(sorted(path.name for path in folder.iterdir()))]


def _fetch_from_hub(source: str, choose: Choose) -> list[Path]:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Of the HTTP library that this version of huggingface_hub is built on, and OSError.
    unreachable = tuple(
        kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "OSError")
    )
    repo, _, pinned = source.partition("@")
    revision = pinned or None
    try:
        found = HfApi().model_info(repo, revision=revision, timeout=TIMEOUT)
        names = [entry.rfilename for entry in found.siblings or ()]
        # By the name asked for and not its commit: so it is found in the cache without the hub.
        return [Path(hf_hub_download(repo, name, revision=revision)) for name in choose(names)]
    except HFValidationError as exc:
        raise UsageError(f"{source}: is no folder and no repository of the hub") from exc
    except unreachable as exc:
        status = getattr(getattr(exc, "response", None), "status_code", 0)
        if status in (401, 403, 404):
            raise SourceError(
                f"{source}: the hub has no such repository or revision, or does not show it "
                f"(HTTP {status})"
            ) from exc
        try:
            cached = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        except OSError:
            reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
            raise SourceError(
                f"{source}: the hub cannot be reached and nothing is cached ({reason}); "
                "name a local folder, or use --init random"
            ) from exc
        return _pick(cached, choose)
