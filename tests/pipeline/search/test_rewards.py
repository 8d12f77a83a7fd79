import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_db.estimate import Estimate
from pipeline.search.base import Score
from pipeline.search.rewards import SoftReward, hard_reward
from pipeline.spaces.base import Architecture

SOME = Architecture((("width", 8),))
positive = st.floats(1.0, 1e9)
scores = st.floats(0.0, 100.0)


class Fixed:
    """A latency model of which every network has the same latency."""

    def __init__(self, latency_ns: float) -> None:
        self.latency_ns = latency_ns

    def estimate(self, architectures):
        return [
            Estimate(self.latency_ns / 2, self.latency_ns, self.latency_ns * 2, 0.9) for _ in architectures
        ]


def reward(score: float, latencies_ns, targets_ns, exponent=-0.07) -> float:
    models = {str(place): Fixed(latency) for place, latency in enumerate(latencies_ns)}
    wanted = {str(place): target for place, target in enumerate(targets_ns)}
    return SoftReward(models, wanted, exponent)(SOME, Score(score))


@given(scores)
def test_hard_reward_is_the_score(score):
    assert hard_reward(SOME, Score(score, 0.1)) == score


@given(scores, st.lists(positive, min_size=1, max_size=3))
def test_soft_reward_is_the_score_at_the_targets(score, targets):
    assert reward(score, targets, targets) == pytest.approx(score)


def test_twice_the_latency_costs_one_twenty_first():
    # 2 ** -0.0704 = 1 / 1.05
    assert reward(80.0, [2e6], [1e6], exponent=-0.0704) == pytest.approx(80.0 * (1 - 0.048), rel=1e-3)
    assert reward(80.0, [2e6], [1e6]) == pytest.approx(80.0 * 2**-0.07)


@given(scores, st.lists(st.tuples(positive, positive), min_size=2, max_size=3))
def test_several_targets_are_a_product(score, pairs):
    latencies, targets = zip(*pairs, strict=True)
    factors = [reward(1.0, [latency], [target]) for latency, target in pairs]
    assert reward(score, latencies, targets) == pytest.approx(score * math.prod(factors))


@given(positive, positive)
def test_faster_is_never_worse(one, other):
    fast, slow = sorted((one, other))
    assert reward(0.9, [fast], [1e6]) >= reward(0.9, [slow], [1e6])


def test_reward_of_what_cannot_run_is_zero():
    assert reward(0.9, [math.inf], [1e6]) == 0.0
    assert reward(0.9, [math.inf, 1e6], [1e6, 1e6], exponent=0.0) == 0.0


@pytest.mark.parametrize(
    ("targets", "exponent"),
    [
        ({}, -0.07),
        ({"b": 1.0}, -0.07),
        ({"a": 0.0}, -0.07),
        ({"a": -1.0}, -0.07),
        ({"a": math.inf}, -0.07),
        ({"a": math.nan}, -0.07),
        ({"a": 1.0}, 0.1),
        ({"a": 1.0}, math.nan),
        ({"a": 1.0}, -math.inf),
    ],
)
def test_targets_and_exponents_without_meaning_are_refused(targets, exponent):
    with pytest.raises(ValueError):
        SoftReward({"a": Fixed(1e6)}, targets, exponent)
