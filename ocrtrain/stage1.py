"""Stage 1: train SAM, CLIP, projector and GPT on images.

The real job, on one GPU with 80 GB:

    python -m ocrtrain.stage1 --shards 'shards/chartqa-<000..017>.tar'

A first trial on two CPU cores, a small model from random weights:

    python tools/make_shards.py charts --limit 2000
    python -m ocrtrain.stage1 --preset tiny --shards shards/charts.json
"""

from __future__ import annotations

from collections.abc import Sequence

from ocrtrain.stage import run_stage


def main(arguments: Sequence[str]) -> int:
    """Run stage 1; returns the exit status."""
    return run_stage("stage1", __doc__ or "", arguments)


if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program(main)
