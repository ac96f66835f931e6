"""Stage 2: train CLIP, projector and a fresh GPT on images mixed with text, with SAM frozen.

The real job, on one GPU with 80 GB:

    python -m ocrtrain.stage2 --deepencoder runs/stage1-full/deepencoder_001000.safetensors \\
        --shards 'shards/chartqa-<000..017>.tar' --text shards/smoltalk-train.json \\
        --val-text 'shards/smoltalk-test.json[:100]' --text-ratio 10/28

The same code on two CPU cores, after `make demo`:

    python -m ocrtrain.stage2 --preset tiny --init random --tokenizer shards/demo-tokenizer.json \\
        --deepencoder runs/demo/stage1/deepencoder_000400.safetensors \\
        --shards 'shards/demo-charts.json[:-200]' --val 'shards/demo-charts.json[-200:]' \\
        --text 'shards/demo-sums.json[:-100]' --val-text 'shards/demo-sums.json[-100:]' \\
        --out runs/mine2
"""

from __future__ import annotations

from collections.abc import Sequence

from ocrtrain.stage import run_stage


def main(arguments: Sequence[str]) -> int:
    """Run stage 2; returns the exit status."""
    return run_stage("stage2", __doc__ or "", arguments)


if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program(main)
