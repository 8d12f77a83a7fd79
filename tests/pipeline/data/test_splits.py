from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import balanced_subset, stratified_split
from pipeline.errors import DataError

COUNTS = st.lists(st.integers(2, 40), min_size=2, max_size=6)


def labels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@given(COUNTS, st.floats(0.01, 0.99), st.integers(0, 9))
def test_stratified_split_puts_every_row_in_one_part_and_every_class_in_both(
    counts: list[int], share: float, seed: int
) -> None:
    labels = labels_of(counts)
    classes = tuple(map(str, range(len(counts))))
    kept, held = stratified_split(labels, share, classes, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for part in (kept, held):
        assert set(labels[part]) == set(range(len(counts)))
    in_held = np.bincount(labels[held])
    assert all(abs(got - share * count) <= 1 for got, count in zip(in_held, counts, strict=True))


@given(COUNTS, st.integers(0, 100), st.integers(0, 9))
def test_balanced_subset_is_as_equal_as_the_classes_allow(counts: list[int], extra: int, seed: int) -> None:
    labels = labels_of(counts)
    limit = len(counts) + extra
    rows = balanced_subset(labels, limit, len(counts), seed=seed)
    assert len(set(rows)) == len(rows) == min(limit, len(labels))
    taken = np.bincount(labels[rows], minlength=len(counts))
    short = [t for t, count in zip(taken, counts, strict=True) if t < count]
    assert not short or max(taken) - min(short) <= 1


def test_stratified_split_repeats_for_a_seed_and_differs_between_seeds() -> None:
    labels = labels_of([30, 30])
    first, again, other = (stratified_split(labels, 0.3, ("a", "b"), seed=seed)[1] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_stratified_split_names_the_class_when_it_is_too_small() -> None:
    with pytest.raises(DataError, match="class 'cat' has 1 image"):
        stratified_split(np.array([0, 0, 1]), 0.5, ("dog", "cat"), seed=0)


def test_balanced_subset_refuses_a_limit_below_the_number_of_classes() -> None:
    with pytest.raises(DataError, match="cannot hold 3 classes"):
        balanced_subset(labels_of([5, 5, 5]), 2, 3, seed=0)
