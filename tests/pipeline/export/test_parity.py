"""Comparison of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import ParityError
from pipeline.export.parity import compare

logits = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-9, 9, width=32)
)


@given(logits)
def test_compare_finds_no_difference_when_outputs_are_equal(values):
    parity = compare(values, values.copy(), 1e-4, name="a")
    assert (parity.max_abs, parity.max_rel, parity.samples) == (0, 0, len(values))


def test_compare_reports_the_largest_differences():
    expected = np.array([[10, 0], [1, -2]], np.float32)
    actual = expected + np.array([[0.5, 0], [0, 0.25]], np.float32)
    parity = compare(expected, actual, 0.5, name="a")
    assert parity.max_abs == 0.5
    assert parity.max_rel == 0.125


@given(logits, st.data())
def test_compare_names_the_worst_sample_when_it_is_past_the_tolerance(expected, data):
    worst = data.draw(st.integers(0, len(expected) - 1))
    actual = expected.copy()
    actual[worst, 0] += 1
    with pytest.raises(ParityError, match=r"more than 0\.0001") as caught:
        compare(expected, actual, 1e-4, name="a")
    assert f"sample {worst}:" in caught.value.why


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_compare_refuses_outputs_that_are_not_finite(bad):
    expected = np.zeros((2, 3), np.float32)
    actual = expected.copy()
    actual[1, 2] = bad
    with pytest.raises(ParityError, match="inf"):
        compare(expected, actual, 1e-4, name="a")
    with pytest.raises(ParityError, match="inf"):
        compare(actual, actual, 1e-4, name="a")


def test_compare_refuses_outputs_of_another_width():
    with pytest.raises(ParityError, match="does not answer like torch"):
        compare(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), 1e-4, name="a")
