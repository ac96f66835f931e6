"""A small trained model, exported once a process."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ocrtrain.export.folder import export
from tests.support import small

NUMBERS = {"val/loss": 0.25, "val/squares_loss": 0.25, "val/image_gain": 1.5}


def run_folder(folder: Path) -> Path:
    """A run of the trained model, with a validation in its log and the summary of an evaluation."""
    run = small.trained(folder).save(folder / "run", shards=("shards/squares.tar",))
    step = small.CONFIG.steps
    lines = [
        {"step": step - 50, **NUMBERS, "val/image_gain": 9.0},
        {"step": step, **NUMBERS, "train/loss": 0.1},
        {"step": step + 1, **NUMBERS, "val/image_gain": 8.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = {"answers": 8, "relaxed": 0.875, "exact": 0.75, "anls": 0.9, "ned": 0.1}
    scores = {"all": row, "kinds": {"colour": row}, "repeating": 2, "cut_off": 0}
    summary = {"shards": "shards/squares.tar[6:]", "scores": scores}
    (run / f"answers-step_{step:06d}.summary.json").write_text(json.dumps(summary))
    return run


@cache
def _made() -> tuple[Path, Path]:
    folder = Path(mkdtemp(prefix="ocr-exported-"))
    run = run_folder(folder)
    export(run, folder / "exported")
    return run, folder / "exported"


def exported() -> Path:
    """The exported folder; not to be changed."""
    return _made()[1]


def exported_run() -> Path:
    """The run it is from; not to be changed."""
    return _made()[0]


def load(what: str, folder: Path, **kwargs: Any) -> Any:
    """What an Auto class of `transformers` makes of a folder, with the classes registered."""
    import transformers

    import ocrtrain.hf

    ocrtrain.hf.register()
    return getattr(transformers, what).from_pretrained(folder, **kwargs)
