"""Serve a trained model over HTTP: `ocrtrain/commands/serve.py`.

python -m ocrtrain.serve --help
"""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrtrain.commands.serve")
