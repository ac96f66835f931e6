"""ANLS as the evaluation script of the Document VQA challenge computes it: for DocVQA and
InfographicVQA."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from ocrtrain.evaluation.scores import ANLS_THRESHOLD

MEASURE = "ANLS"

DEFINITION = (
    "1 - edit distance / longer length, of the best gold answer, and 0 below 0.5 (arXiv "
    "1907.00490, equation 1). Followed, as its script is: at exactly 0.5 it counts, and lengths "
    "are those of the texts before their white space is folded"
)
NORMALISATION = "case ignored, white space of any kind is one blank; punctuation counts"
CHECKED = (
    "measure: hand-computed cases, and the script's formula as lmms-eval and Qwen-VL have copied it"
)


def script_anls(answer: str, golds: Sequence[str]) -> float:
    """In [0, 1]. Lengths are in code points of the texts as given: white space that folding removes
    makes the distance relatively smaller."""
    distances = [_distance(answer, gold) for gold in golds]
    similarity = 1 - min(distances)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _distance(answer: str, gold: str) -> float:
    given, expected = (" ".join(text.strip().lower().split()) for text in (answer, gold))
    longer = max(len(answer.upper()), len(gold.upper()))
    return Levenshtein.distance(given, expected) / longer if longer else 0.0
