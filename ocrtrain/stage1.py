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


def main(arguments: Sequence[str]) -> int:
    """Run stage 1; returns the exit status."""
    # Imported late, so that Ctrl-C during an import prints one line. torch is imported after the
    # flags are checked.
    from ocrtrain.settings import presets
    from ocrtrain.settings.flags import parse

    flags = parse(
        arguments,
        presets.stage1,
        prog="python -m ocrtrain.stage1",
        description="Train SAM, CLIP, projector and GPT on images.",
    )
    from ocrtrain.run.launch import start

    return start(flags)


if __name__ == "__main__":
    run(main)
