"""Stage 1: train SAM, CLIP, projector and GPT on images.

The real job, on one GPU with 80 GB:

    python -m ocrtrain.stage1 --shards 'shards/chartqa-<000..017>.tar'

The same code on two CPU cores, after `make demo` has made its shards and tokenizer:

    python -m ocrtrain.stage1 --preset tiny --init random --tokenizer shards/demo-tokenizer.json \\
        --shards 'shards/demo-charts.json[:-200]' --val 'shards/demo-charts.json[-200:]' \\
        --out runs/mine
"""

from __future__ import annotations

from collections.abc import Sequence

from ocrdata.runtime.cli import run
from ocrtrain.stage import run_stage


def main(arguments: Sequence[str]) -> int:
    """Run stage 1; returns the exit status."""
    return run_stage("stage1", "Train SAM, CLIP, projector and GPT on images.", arguments)


if __name__ == "__main__":
    run(main)
