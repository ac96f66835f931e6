"""Ask a trained model one question: `ocrtrain/commands/ask.py`.

python -m ocrtrain.ask --help
"""

if __name__ == "__main__":
    import gc

    # What is imported stays: looking for garbage meanwhile takes a tenth of the start. The
    # process ends with its answer.
    gc.disable()
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.ask")
