"""Export a trained model for Hugging Face: `ocrtrain/commands/export.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.export")
