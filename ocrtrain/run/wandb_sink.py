"""Weights & Biases: a run in `wandb/` of the run folder, sent to its server if there is a key.

What is not typed as a flag is taken from its own variables: WANDB_MODE, WANDB_PROJECT, WANDB_NAME,
WANDB_DIR, WANDB_API_KEY, WANDB_BASE_URL. A resumed run goes on in the same record; W&B ignores the
steps that it has already.
"""

from __future__ import annotations

import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ocrdata.errors import TrainError, UsageError, first_line
from ocrtrain.settings.config import PROJECT, Config
from ocrtrain.settings.presets import STAGES
from ocrtrain.settings.saved_config import to_json

Mode = Literal["online", "offline", "disabled"]

MODES: dict[str, Mode] = {
    "online": "online", "run": "online", "shared": "online", "offline": "offline",
    "dryrun": "offline", "disabled": "disabled",
}  # fmt: skip
"""Values of WANDB_MODE -> how W&B is started."""

REACH_S = 5.0
"""Seconds to wait for the server's first answer: a run without a network must not wait longer."""
INIT_S = 20.0
FINISH_S = 120.0
"""Seconds to wait for the start, and for the upload at the end. What is not sent stays on disk."""


ASKED: dict[str, Mode | None] = {
    "auto": None, "online": "online", "offline": "offline", "off": "disabled",
}  # fmt: skip
"""Values of --wandb -> how W&B is started; None: not said."""


def asked_mode(config: Config) -> tuple[Mode | None, str]:
    """What --wandb says, else WANDB_MODE, and how it was said; None: neither says it. Raises
    UsageError for an unknown WANDB_MODE."""
    wanted = ASKED[config.wandb]
    if wanted is None and (variable := os.environ.get("WANDB_MODE")):
        if variable not in MODES:
            raise UsageError(f"WANDB_MODE={variable}: choose from {', '.join(MODES)}")
        return MODES[variable], f"WANDB_MODE={variable}"
    return wanted, f"--wandb {config.wandb}"


def wandb_mode(config: Config) -> Mode:
    """online, offline or disabled: by --wandb, else by WANDB_MODE, else by whether there is a key.

    Raises UsageError where online is asked for without a key, or WANDB_MODE is unknown.
    """
    wanted, asked = asked_mode(config)
    if wanted == "online" and not has_key():
        raise UsageError(f"{asked} needs an API key: set WANDB_API_KEY or run `wandb login`")
    if wanted == "online" and not is_reachable(server()):
        raise TrainError(f"{asked}: {server()} cannot be reached; try --wandb offline")
    if wanted or not has_key():
        return wanted or "offline"
    if is_reachable(server()):
        return "online"
    print(
        f"WARNING: W&B's server {server()} cannot be reached: its run is offline; send it later "
        "with `wandb sync`",
        flush=True,
    )
    return "offline"


def server() -> str:
    """The URL of W&B's server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def has_key() -> bool:
    """Whether W&B has an API key: in the environment, or in the netrc file, where `wandb login`
    stores it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(server()).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def is_reachable(url: str) -> bool:
    """Whether a server answers, with whatever, within `REACH_S`; through a proxy if one is set."""
    found = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=REACH_S).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        found.set()

    # In a thread, because looking a name up has no timeout.
    thread = threading.Thread(target=ask, name="wandb server", daemon=True)
    thread.start()
    thread.join(REACH_S)
    return found.is_set()


class WandbSink:
    """A W&B run. `id` is what a resumed run needs to go on in it."""

    def __init__(self, run: Path, config: Config, *, mode: Mode, run_id: str = "") -> None:
        """Start it. Raises TrainError if it does not start."""
        import wandb

        limits = {"init_timeout": INIT_S, "finish_timeout": FINISH_S}
        known = {key: s for key, s in limits.items() if key in wandb.Settings.model_fields}
        name = os.environ.get("WANDB_NAME") if config.name in STAGES else None
        try:
            self._run: Any = wandb.init(
                project=config.wandb_project or os.environ.get("WANDB_PROJECT") or PROJECT,
                name=name or config.name,
                id=run_id or None,
                resume="allow" if run_id else None,
                mode=mode,
                dir=os.environ.get("WANDB_DIR") or str(run),
                config=to_json(config),
                settings=wandb.Settings(silent=True, console="off", **known),
            )
        except wandb.Error as exc:
            raise TrainError(
                f"Weights & Biases did not start: {first_line(exc)}; try --wandb offline"
            ) from exc
        self.id: str = self._run.id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        with _without_late_tracebacks():
            self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        """End the run with an exit code that says whether it failed."""
        with _without_late_tracebacks():
            self._run.finish(exit_code=int(failed))


@contextmanager
def _without_late_tracebacks() -> Iterator[None]:
    """If W&B's process is gone, take back what W&B would do when Python exits: it would fail with a
    traceback."""
    try:
        yield
    except Exception:
        import wandb

        with suppress(Exception):
            wandb.teardown()
        raise
