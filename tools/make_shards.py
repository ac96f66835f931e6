"""Convert a data set to shards: `ocrdata/commands/make_shards.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrdata.commands.make_shards")
