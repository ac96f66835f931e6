"""Train a tokenizer on the texts of shards: `ocrdata/commands/train_tokenizer.py`."""

from ocrdata.runtime.cli import run

if __name__ == "__main__":
    run("ocrdata.commands.train_tokenizer")
