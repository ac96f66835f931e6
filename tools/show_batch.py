"""Show the batch of any step of a run: `ocrtrain/commands/show_batch.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrtrain.commands.show_batch")
