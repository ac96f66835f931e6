"""What a run will take, before it starts: `ocrtrain/commands/plan.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.plan")
