"""Train a tokenizer on the texts of shards: `ocrdata/commands/train_tokenizer.py`."""

if __name__ == "__main__":
    from ocrdata.runtime.program import run_program

    run_program("ocrdata.commands.train_tokenizer")
