from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import balanced_subset, paired_split, stratified_split
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
    rows = balanced_subset(labels, limit, seed=seed)
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
        balanced_subset(labels_of([5, 5, 5]), 2, seed=0)


def test_balanced_subset_counts_the_classes_that_there_are() -> None:
    labels = np.repeat([3, 50], 4)
    assert sorted(balanced_subset(labels, 8, seed=0)) == list(range(8))
    assert np.bincount(labels[balanced_subset(labels, 2, seed=0)], minlength=51)[[3, 50]].tolist() == [1, 1]


@given(st.lists(st.integers(1, 40), min_size=3, max_size=12), st.floats(0.01, 0.6), st.integers(0, 9))
def test_paired_split_holds_out_no_image_of_several_alone(counts: list[int], share: float, seed: int) -> None:
    counts = [*counts, 2]
    labels = labels_of(counts)
    kept, held = paired_split(labels, share, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(kept) > 0
    in_held = np.bincount(labels[held], minlength=len(counts))
    assert set(in_held[in_held > 0]) >= {2} or in_held.max() > 1
    assert 1 not in in_held
    assert len(held) <= max(2, share * len(labels) + len(counts))


def test_paired_split_keeps_the_share_of_large_and_of_many_small_classes() -> None:
    labels = labels_of([100, 40] + 100 * [4])
    _, held = paired_split(labels, 0.15, seed=0)
    in_held = np.bincount(labels[held], minlength=102)
    assert in_held[:2].tolist() == [15, 6]
    assert (in_held[2:].sum(), in_held[2:].max()) == (60, 2)


def test_paired_split_of_large_classes_is_that_in_proportion() -> None:
    labels = labels_of([30, 20])
    first = paired_split(labels, 0.3, seed=3)
    second = stratified_split(labels, 0.3, ("a", "b"), seed=3)
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0]])
def test_paired_split_refuses_what_leaves_a_part_without_images(labels: list[int]) -> None:
    with pytest.raises(DataError, match="too few to split by their labels"):
        paired_split(np.array(labels), 0.2, seed=0)
