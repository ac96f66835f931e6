"""Verify every byte of shards: `ocrdata/commands/check_shards.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrdata.commands.check_shards")
