"""Make new shard sets of existing ones: `ocrdata/commands/reshard.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrdata.commands.reshard")
