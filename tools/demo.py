"""The whole job on synthetic data: `ocrtrain/commands/demo.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.demo")
