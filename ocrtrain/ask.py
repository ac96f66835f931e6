"""Ask a trained model one question: `ocrtrain/commands/ask.py`.

python -m ocrtrain.ask --help
"""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.ask")
