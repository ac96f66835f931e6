"""Convert a data set to shards: `ocrdata/commands/make_shards.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrdata.commands.make_shards")
