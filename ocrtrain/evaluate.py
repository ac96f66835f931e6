"""Evaluate a trained model on a slice of shards: `ocrtrain/commands/evaluate.py`.

python -m ocrtrain.evaluate --help
"""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrtrain.commands.evaluate")
