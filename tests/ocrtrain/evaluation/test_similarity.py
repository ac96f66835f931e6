"""Similarity and std computed from sums, against a computation over all pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.evaluation.similarity import Similarity
from tests.support import small


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**31), st.integers(1, 4))
def test_similarity_from_sums_equals_that_of_all_pairs(
    images: int, channels: int, seed: int, parts: int
) -> None:
    vectors = np.random.default_rng(seed).normal(1.0, 2.0, (images, channels)).astype("f")
    found = Similarity(limit=images)
    for part in np.array_split(vectors, parts):
        found.add_vectors(torch.from_numpy(part))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [float(a @ b) for a, b in itertools.combinations(units, 2)]
    assert found.similarity == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found.std == pytest.approx(np.sqrt(vectors.var(axis=0).mean()), rel=1e-5)


def test_a_collapsed_encoder_has_similarity_one_and_std_zero() -> None:
    found = Similarity(limit=9)
    found.add_vectors(torch.full((5, 8), 0.3))
    assert found.similarity == pytest.approx(1.0)
    assert found.std == pytest.approx(0.0, abs=1e-9)


def test_images_count_once_up_to_the_limit() -> None:
    model = small.untrained()
    pictures = [torch.full((8, 8, 3), value, dtype=torch.uint8) for value in (0, 90, 200, 255)]
    wide = torch.zeros((4, 16, 3), dtype=torch.uint8)  # the bytes of a square, another shape
    once, twice, bounded = Similarity(9), Similarity(9), Similarity(2)
    with torch.no_grad():
        once.add(model, [*pictures, wide], [64] * 5)
        twice.add(model, [pictures[0], pictures[0], pictures[1]], [64] * 3)
        twice.add(model, [pictures[1].clone(), pictures[2], pictures[3], wide], [64] * 4)
        twice.add(model, [pictures[0]], [64])
        bounded.add(model, pictures, [64] * 4)
        features = model.encoder.features(model.pixels([*pictures, wide]))
    vectors = features.flatten(1).double()
    units = torch.nn.functional.normalize(vectors, dim=1)
    pairs = [float(a @ b) for a, b in itertools.combinations(units, 2)]
    assert once.similarity == pytest.approx(np.mean(pairs), abs=1e-6)
    assert twice.similarity == pytest.approx(once.similarity, abs=1e-6)
    assert twice.std == pytest.approx(once.std, rel=1e-4)
    assert bounded.similarity == pytest.approx(float(units[0] @ units[1]), abs=1e-6)


def test_fewer_than_two_images_have_no_similarity() -> None:
    found = Similarity(4)
    assert found.similarity is None
    assert found.std is None
    found.add_vectors(torch.ones(1, 3))
    assert found.similarity is None
    assert found.std is None
