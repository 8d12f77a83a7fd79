"""Why a winner takes less than its budgets."""

from __future__ import annotations

import pytest

from latency_db.estimate import Estimate
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import EvaluatedCandidate, Searched
from pipeline.stages.searching.size import why_unused

LIMITS = {"a": 100.0, "b": 100.0}


def named(name: str) -> Architecture:
    return Architecture((("which", name),))


def candidate(name: str, a: float, b: float) -> EvaluatedCandidate:
    """A candidate, and the upper ends of its latencies."""
    estimates = {target: Estimate(high / 2, 0.9 * high, high, 0.9) for target, high in (("a", a), ("b", b))}
    return EvaluatedCandidate(named(name), 0.5, None, None, estimates)


def why(searched: Searched, **arguments: object) -> dict[str, str]:
    return why_unused(searched, named("winner"), LIMITS, **({"soft": ()} | arguments))  # type: ignore[arg-type]


def test_the_margin_of_the_prediction_is_what_the_nearest_budget_leaves_and_the_others_wait_for_it() -> None:
    found = why(Searched((candidate("winner", 98, 60),), (), ()))
    assert found == {"a": "the prediction allowed for up to 98% of it", "b": "the budget on a is nearer"}


@pytest.mark.parametrize(
    ("could_grow", "others", "words"),
    [
        ((), (), "the next larger choice of any decision is beyond a limit"),
        ((named("winner"),), (), "no larger candidate was evaluated"),
        (
            (named("winner"),),
            (candidate("larger", 95, 80),),
            "1 larger candidate evaluated, and not preferred (tau of size and score -0.25)",
        ),
        (None, (), "no network within the budgets was held for better"),
    ],
)
def test_room_by_the_prediction_has_another_cause(
    could_grow: tuple[Architecture, ...] | None, others: tuple[EvaluatedCandidate, ...], words: str
) -> None:
    candidates = (candidate("winner", 70, 60), *others)
    found = why(Searched(candidates, (), (), could_grow=could_grow, size_tau=-0.25))
    assert found.keys() == LIMITS.keys()
    assert all(each.startswith(words) for each in found.values())


def test_a_budget_that_is_a_preference_limits_nothing() -> None:
    searched = Searched((candidate("winner", 70, 99),), (), (), could_grow=())
    assert why(searched, soft={"b"}).keys() == {"a"}
    assert why(searched, soft={"a", "b"}) == {}
    assert why(Searched((), (), ())) == {}
