"""Fox: a page read as a whole, by edit distance and by the words it has in common with the text."""

from __future__ import annotations

import re

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value
from ocrtrain.evaluation.scores import edit_distance, word_overlap

NED, PRECISION, RECALL, F1, LENGTH = "NED", "precision", "recall", "F1", "length"
CHINESE = re.compile("[\u4e00-\u9fa5]")
"""What the authors' script takes for Chinese: such texts it cuts into words with jieba."""
LEFT_OUT = "pages in Chinese, whose words are not scored: the script's jieba is not installed here"
TOKENS_A_BIN = 100


def measure(answer: str, gold: Gold) -> Measured:
    """Edit distance and relative length of every page; words of pages without Chinese letters."""
    text = gold.answers[0]
    chinese = bool(CHINESE.search(text) or CHINESE.search(answer))
    groups = {"language": ("Chinese" if CHINESE.search(text) else "English",)}
    if gold.tokens:
        start = gold.tokens // TOKENS_A_BIN * TOKENS_A_BIN
        groups["text tokens"] = (f"{start:,} to {start + TOKENS_A_BIN - 1:,}",)
    if gold.tokens and gold.slots:
        ratio = gold.tokens // gold.slots
        groups["compression"] = (f"{ratio} to {ratio + 1} text tokens an image position",)
    found = [
        (NED, edit_distance(answer, text)),
        (LENGTH, len(answer) / len(text)),
    ]
    if not chinese:
        words = word_overlap(answer, text)
        precision, recall = words.precision, words.recall
        total = precision + recall
        found += [
            (PRECISION, precision),
            (RECALL, recall),
            (F1, 2 * precision * recall / total if total else 0.0),
        ]
    values = tuple(Value(name, value, groups) for name, value in found)
    return Measured(values, left_out={LEFT_OUT: 1} if chinese else {})


BENCHMARK = Benchmark(
    name="fox",
    title="Fox",
    version="focus_benchmark_test of 2024",
    definition="arXiv 2405.14295; the authors' eval_tools/eval_ocr_test.py (Fox at 82f720c): "
    "Levenshtein distance of characters / the longer length, and sets of words. Its BLEU and "
    "METEOR are not computed. DeepSeek-OCR (arXiv 2510.18234) reports the precision of English "
    "pages, by tokens of its own tokenizer; here tokens are those of the model's tokenizer. "
    "length: characters of the answer / of the gold text; a short answer has a high precision",
    normalisation="none but Unicode's composed form (NFC): case, line feeds and punctuation count; "
    "words are what white space separates, each counted once",
    checked="measure: the authors' script, read, and hand-computed cases; layout: their README and "
    "script, not the files",
    columns=(
        Measure(NED, percent=False, lower=True),
        Measure(PRECISION),
        Measure(RECALL),
        Measure(F1),
        Measure(LENGTH, percent=False),
    ),
    measure=measure,
)
