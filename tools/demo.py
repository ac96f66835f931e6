"""The whole job on synthetic data: `ocrtrain/commands/demo.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrtrain.commands.demo")
