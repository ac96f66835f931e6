"""Show the batch of any step of a run: `ocrtrain/commands/show_batch.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.show_batch")
