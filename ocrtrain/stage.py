"""What the commands `stage1` and `stage2` share: flags with the stage's presets, then the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocrtrain.settings.config import Config


def run_stage(stage: str, description: str, arguments: Sequence[str]) -> int:
    """Run a stage, by the name of its function in `settings/presets.py`; returns the exit
    status."""
    # Imported late, so that Ctrl-C during an import prints one line. torch is imported after the
    # flags are checked.
    from ocrdata.runtime.cli import add_json_flag
    from ocrtrain.settings import presets
    from ocrtrain.settings.flags import parse
    from ocrtrain.settings.world import said_once, world_of

    with said_once(world_of(os.environ)):
        flags = parse(
            arguments,
            getattr(presets, stage),
            prog=f"python -m ocrtrain.{stage}",
            description=description,
            add=add_json_flag,
            check=_check,
        )
    from ocrtrain.run.launch import start

    return start(flags)


def _check(config: Config) -> None:
    from ocrtrain.data.inputs import check_inputs

    check_inputs(config)
