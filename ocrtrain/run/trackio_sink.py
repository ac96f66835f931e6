"""trackio: a local database in `trackio/` of the run folder, or in TRACKIO_DIR
(`TRACKIO_DIR=RUN/trackio trackio show`).

It starts no server. It asks the hub for the name of the user whose token is stored here, unless the
hub is offline (HF_HUB_OFFLINE); and sends the numbers to a Space or server if TRACKIO_SPACE_ID or
TRACKIO_SERVER_URL names one. A resumed run goes on in the same record; it cannot be cut back, so
that steps trained again have two points.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocrtrain.settings.config import PROJECT, Config
from ocrtrain.settings.saved_config import to_json

FOLDER = "trackio"


class TrackioSink:
    """Writes to trackio. Its folder is chosen once a process, when the library is imported."""

    def __init__(self, run: Path, config: Config) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((run / FOLDER).absolute()))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how to look at it
            import trackio

            self._finish: Any = trackio.finish
            self._run: Any = trackio.init(
                project=config.wandb_project or PROJECT,
                name=f"{config.name}-{run.absolute().name}",
                config=to_json(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the numbers; a thread writes them."""
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        """Wait until all is written. A record does not say how a run ended."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._finish()
