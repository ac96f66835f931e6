"""Ask a trained model one question: `ocrtrain/commands/ask.py`.

python -m ocrtrain.ask --help
"""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrtrain.commands.ask")
