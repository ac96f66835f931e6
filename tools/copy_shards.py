"""Copy a shard set to another place: `ocrdata/commands/copy_shards.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrdata.commands.copy_shards")
