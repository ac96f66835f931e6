"""Training, evaluating and asking a small OCR vision-language model from shards."""
