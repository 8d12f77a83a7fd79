from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, r2_score

from pipeline.tasks.metrics import mean_average_precision, nearest_is_alike, r_squared

SEEDS = st.integers(0, 2**16)


@given(SEEDS, st.booleans())
def test_the_mean_average_precision_is_that_of_scikit_learn(seed: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random((30, 4)) < 0.3).astype(np.float32)
    labels[0] = 1
    scores = generator.standard_normal((30, 4)).round(0 if ties else 6).astype(np.float32)
    expected = average_precision_score(labels, scores, average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected)


def test_labels_that_no_image_has_are_left_out() -> None:
    labels = np.array([[1, 0], [0, 0]], np.float32)
    assert mean_average_precision(np.array([[0.9, 0.1], [0.1, 0.9]]), labels) == 1.0


@given(SEEDS)
def test_r_squared_is_that_of_scikit_learn_in_any_unit(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.standard_normal((20, 3))
    values = labels + generator.standard_normal((20, 3))
    assert r_squared(values, labels) == pytest.approx(r2_score(labels, values))
    assert r_squared(5 * values + 2, 5 * labels + 2) == pytest.approx(r_squared(values, labels))


def test_the_nearest_other_image_is_asked_by_the_cosine() -> None:
    vectors = np.array([[1, 0], [50, 1], [0, 1], [0.1, 9], [-1, 0]], np.float32)
    labels = np.array([0, 0, 1, 0, 2])
    # The third's nearest is the fourth, of another label; the first and second have each other; the last is
    # alone, as is the third.
    assert nearest_is_alike(vectors, labels).tolist() == [1, 1, -1, 0, -1]


def test_more_images_than_are_compared_at_a_time_give_the_same() -> None:
    generator = np.random.default_rng(0)
    vectors, labels = generator.standard_normal((600, 3)), generator.integers(0, 5, 600)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    expected = labels[alike.argmax(axis=1)] == labels
    assert (nearest_is_alike(vectors, labels) == expected).all()
