"""Verify every byte of shards: `ocrdata/commands/check_shards.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrdata.commands.check_shards")
