"""What a run will take, before it starts: `ocrtrain/commands/plan.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrtrain.commands.plan")
