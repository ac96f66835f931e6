"""Evaluate a trained model on a slice of shards: `ocrtrain/commands/evaluate.py`.

python -m ocrtrain.evaluate --help
"""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.evaluate")
