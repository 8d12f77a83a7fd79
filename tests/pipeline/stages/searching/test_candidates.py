"""What is made of a second score."""

from __future__ import annotations

import pytest

from pipeline.search.base import Posterior, Score
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import joined

ONE = Architecture((("which", 0),))


def test_a_second_score_and_what_was_expected_count_by_their_inverse_variances() -> None:
    found = joined(Candidate(ONE, Score(1.0, 0.02)), Posterior(0.9, 0.01)).score
    assert found is not None
    assert found.value == pytest.approx((0.25 * 1.0 + 1.0 * 0.9) / 1.25)
    assert found.spread == pytest.approx((1 / 0.02**2 + 1 / 0.01**2) ** -0.5)


def test_a_lucky_second_score_does_not_beat_one_that_was_expected_to_be_better() -> None:
    lucky = joined(Candidate(ONE, Score(1.0, 0.02)), Posterior(0.96, 0.01)).score
    steady = joined(Candidate(ONE, Score(0.99, 0.02)), Posterior(0.98, 0.01)).score
    assert lucky is not None
    assert steady is not None
    assert steady.value > lucky.value


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (Score(0.9), Posterior(0.5, 0.1)),
        (Score(0.9, 0.1), None),
        (Score(0.9, 0.1), Posterior(0.5, 0.0)),
    ],
)
def test_a_second_score_stands_alone_where_one_of_both_says_nothing_of_its_spread(
    score: Score, expected: Posterior | None
) -> None:
    again = Candidate(ONE, score)
    assert joined(again, expected) is again
