from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import VerificationError, WorkFolderError
from pipeline.recipe.loading import Recipe
from pipeline.run.context import Context
from pipeline.run.missed_budgets import search_and_try
from pipeline.search.base import Evaluator, Score
from pipeline.search.journal import Candidate
from pipeline.search.strategies.predictor import INITIAL, PredictorStrategy
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import Round, Searched, joined
from pipeline.stages.searching.search import SearchInput, search_candidates
from pipeline.stages.searching.strategy import StrategySettings
from pipeline.stages.student.winner import Failure
from pipeline.work.stage import StageFolder
from tests.pipeline.run.made_up_run import (
    MEMBERS,
    TARGET,
    ByMacs,
    made_up_context,
    network_ns,
    predictors,
    recipe_of,
    searched,
    share_ns,
)

NAME = str(TARGET)
LIMIT_NS = share_ns(0.5)
BUDGET = f"{LIMIT_NS / 1e6}ms"


def search(folder: Path, recipe: Recipe, evaluator: ByMacs | None = None, *, anew: bool = False) -> Searched:
    with made_up_context(folder, recipe, anew=anew) as context:
        return searched(context, Round(predictors(context), context.tries), evaluator)


def test_a_search_measures_its_best_and_puts_those_that_keep_the_budget_in_order(tmp_path: Path) -> None:
    found = search(tmp_path, recipe_of(BUDGET))
    assert len(found.candidates) == 12
    scores = [candidate.score or 0.0 for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert len(found.order) >= 3
    for architecture in found.order:
        assert network_ns(architecture) <= LIMIT_NS
    assert {each.architecture for each in found.measured} >= set(found.order)


def test_the_models_learn_from_candidates_that_were_measured_meanwhile(tmp_path: Path) -> None:
    """Networks of depth 3 are twice as slow as their blocks say, which only measuring can tell."""

    def cost(architecture: Architecture) -> float:
        return network_ns(architecture) * (2.0 if architecture["stage1.depth"] == 3 else 1.0)

    with made_up_context(tmp_path, recipe_of(BUDGET, rounds=1), cost=cost) as context:
        before = predictors(context)
        found = searched(context, Round(before, context.tries))
        after = before.learned(found.measured)
    assert len(after.networks) > len(before.networks)
    assert after.models[NAME].fitted_networks == len(after.networks)
    learned = {each.architecture for each in found.measured}
    assert learned <= {each.architecture for each in after.networks}
    assert after.learned(found.measured).networks == after.networks
    assert all(cost(architecture) <= LIMIT_NS for architecture in found.order)


@pytest.mark.parametrize("lives", [4, 7])
def test_a_search_that_was_killed_ends_like_one_that_was_not(tmp_path: Path, lives: int) -> None:
    whole = search(tmp_path / "whole", recipe_of(BUDGET))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", recipe_of(BUDGET), ByMacs(lives))
    evaluator = ByMacs()
    assert search(tmp_path / "killed", recipe_of(BUDGET), evaluator) == whole
    assert len(evaluator.evaluated) == 12 - lives


@pytest.mark.parametrize("strategy", ["random", "evolution", "nsga2", "policy", "predictor"])
def test_every_strategy_searches_within_the_budget(tmp_path: Path, strategy: str) -> None:
    found = search(tmp_path, recipe_of(BUDGET, strategy=strategy))
    for candidate in found.candidates:
        # The models that learned on the way may see what was drawn before in another light.
        assert candidate.estimates[NAME].value_ns <= LIMIT_NS * 1.05


def test_a_predictor_is_asked_even_in_a_short_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fitted = PredictorStrategy._fitted
    monkeypatch.setattr(PredictorStrategy, "_fitted", lambda self: asked.append(1) or fitted(self))
    recipe = recipe_of(BUDGET, strategy="predictor")
    assert recipe.search.evaluations < INITIAL
    search(tmp_path, recipe)
    assert asked


def slower(
    share: float, tried: list[Architecture]
) -> Callable[[Searched], tuple[Architecture | None, list[Failure]]]:
    """An attempt whose artifacts take ``share`` times as long as their networks did."""

    def attempt(found: Searched) -> tuple[Architecture | None, list[Failure]]:
        failures = []
        for architecture in found.order[:3]:
            tried.append(architecture)
            its_share = share * network_ns(architecture) / LIMIT_NS
            if its_share <= 1:
                return architecture, failures
            failures.append(Failure(architecture, {NAME: its_share}, "too slow"))
        return None, failures

    return attempt


def rounds(context: Context, share: float, tried: list[Architecture]) -> tuple[Searched, Architecture]:
    return search_and_try(
        context,
        predictors(context),
        search=lambda this: searched(context, this),
        attempt=slower(share, tried),
    )


def test_a_search_goes_on_below_tighter_limits_when_all_candidates_broke_the_budget(tmp_path: Path) -> None:
    tried: list[Architecture] = []
    with made_up_context(tmp_path, recipe_of(BUDGET)) as context:
        found, winner = rounds(context, 1.8, tried)
        again = rounds(context, 1.8, [])
        assert sum(record.name == "search" for record in context.work.records) == 2
    assert again == (found, winner)
    assert 1.8 * network_ns(winner) <= LIMIT_NS
    assert len(tried) >= 4
    assert len(set(tried)) == len(tried)
    assert all(network_ns(each.architecture) < LIMIT_NS / 1.3 for each in found.candidates)


def test_an_order_without_winner_ends_with_the_nearest_budget_that_a_measured_network_keeps(
    tmp_path: Path,
) -> None:
    refusal = pytest.raises(VerificationError, match="no candidate keeps")
    with made_up_context(tmp_path, recipe_of(BUDGET, rounds=1)) as context, refusal as caught:
        rounds(context, 1.8, [])
    nearest = re.search(r"budget_ms = ([\d.]+) on " + NAME, caught.value.fix)
    assert nearest is not None
    assert float(nearest[1]) * 1e6 >= LIMIT_NS
    assert "too slow" in caught.value.why


def test_measurements_that_say_nothing_begin_no_other_round(tmp_path: Path) -> None:
    refusal = pytest.raises(VerificationError, match="no candidate keeps")
    with made_up_context(tmp_path, recipe_of("1000ms")) as context, refusal as caught:
        search_and_try(
            context,
            predictors(context),
            search=lambda this: searched(context, this),
            attempt=lambda found: (None, [Failure(found.order[0], {}, "the measurement is invalid")]),
        )
    assert [record.name for record in context.work.records].count("search") == 1
    assert "is invalid" in caught.value.why
    assert "leave the devices to the measurement alone" in caught.value.fix


def test_a_soft_budget_may_be_exceeded_and_decides_between_candidates(tmp_path: Path) -> None:
    tight = f"{share_ns(0.02) / 1e6}ms soft"
    free = search(tmp_path / "free", recipe_of(tight, exponent=0.0, strategy="random"))
    dear = search(tmp_path / "dear", recipe_of(tight, exponent=-3.0, strategy="random"))
    assert {c.architecture for c in free.candidates} == {c.architecture for c in dear.candidates}
    assert any(candidate.estimates[NAME].low_ns > share_ns(0.02) for candidate in free.candidates)
    assert len(free.order) >= 3
    assert network_ns(dear.order[0]) < network_ns(free.order[0])


def test_a_changed_recipe_is_refused_while_its_search_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, recipe_of(BUDGET), ByMacs(5))
    changed = recipe_of(BUDGET, population=5)
    with pytest.raises(WorkFolderError, match="was interrupted") as caught:
        search(tmp_path, changed)
    assert "search.population: 5, was 8" in caught.value.why
    assert "--anew" in caught.value.fix
    assert len(search(tmp_path, changed, anew=True).candidates) == 12
    # What was begun before is still there, and is gone on with; no score is made twice.
    evaluator = ByMacs()
    assert len(search(tmp_path, recipe_of(BUDGET), evaluator).candidates) == 12
    assert len(evaluator.evaluated) <= 7


def test_a_change_that_does_not_concern_the_search_goes_on_with_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, recipe_of(BUDGET), ByMacs(5))
    evaluator = ByMacs()
    assert len(search(tmp_path, recipe_of(BUDGET, rounds=1), evaluator).candidates) == 12
    assert len(evaluator.evaluated) == 7


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"evaluations": 14}),
        ({"evaluations": 14}, {}),
        ({"strategy": "evolution"}, {"strategy": "evolution", "evaluations": 30}),
        ({}, {"minutes": 60.0}),
        ({"minutes": 60.0}, {}),
        ({}, {"finalists": 5}),
    ],
)
def test_a_change_of_how_long_a_search_goes_on_goes_on_with_it(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "changed", recipe_of(BUDGET, **before), ByMacs(5))
    evaluator = ByMacs()
    changed = search(tmp_path / "changed", recipe_of(BUDGET, **after), evaluator)
    assert len(evaluator.evaluated) == after.get("evaluations", 12) - 5
    assert changed == search(tmp_path / "whole", recipe_of(BUDGET, **after))
    # It is the same search, with its journal and its clock.
    assert len(list((tmp_path / "changed" / "work" / "stages").glob("search-*"))) == 1


def test_other_evaluations_are_refused_where_a_search_would_have_begun_otherwise(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, recipe_of(BUDGET, strategy="predictor"), ByMacs(5))
    with pytest.raises(WorkFolderError, match="was interrupted") as caught:
        search(tmp_path, recipe_of(BUDGET, strategy="predictor", evaluations=30))
    assert caught.value.why == "search.evaluations: 30, was 12"


def test_the_time_before_a_change_of_the_limit_counts(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, recipe_of(BUDGET), ByMacs(5))
    (clock,) = (tmp_path / "work" / "stages").glob("search-*/seconds.json")
    clock.write_text('{"seconds": 120}')
    found = search(tmp_path, recipe_of(BUDGET, minutes=2.0))
    assert len(found.candidates) == 5
    assert found.no_time_for == 7


def test_the_space_of_these_tests_has_room_for_a_search() -> None:
    assert len(MEMBERS) > 50


@dataclass(frozen=True)
class Noisy:
    """An evaluation whose first look cannot tell the best ones apart; the second prefers the smallest."""

    spread: float
    score: str = "number"

    def at(self, fidelity: float) -> Noisy:
        return self

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        return NoisyEvaluator(self.spread, level)


@dataclass(frozen=True)
class NoisyEvaluator:
    spread: float
    level: int

    def evaluate(self, architecture: Architecture) -> Score:
        value = network_ns(architecture) / 1e9
        return Score(0.5 + value if self.level == 0 else 0.5 - value, self.spread)


@pytest.mark.parametrize(
    ("spread", "reevaluated", "again"), [(0.4, "ties", 4), (1e-12, "ties", 0), (0.4, 2, 2), (0.4, 0, 0)]
)
def test_what_only_noise_tells_apart_is_evaluated_again_and_said_so(
    tmp_path: Path, spread: float, reevaluated: Any, again: int
) -> None:
    with made_up_context(tmp_path, recipe_of(BUDGET)) as context:
        this = Round(predictors(context), context.tries)
        strategy = StrategySettings.of(context.recipe)
        given = SearchInput(this, Noisy(spread), strategy, reevaluated, context.where)
        found = context.do(search_candidates, given)
    shown = [candidate.reevaluation is not None for candidate in found.candidates]
    assert shown == [True] * again + [False] * (12 - again)
    best = found.candidates[0]
    if again:
        seconds = [Score(each.reevaluation or 0.0, spread) for each in found.candidates[:again]]
        weighed = [
            joined(Candidate(each.architecture, second), each.posterior).score
            for each, second in zip(found.candidates, seconds, strict=False)
        ]
        values = [each.value for each in weighed if each is not None]
        assert values == sorted(values, reverse=True)
        assert best.reevaluation_spread == spread
    tied = found.tied_with(best.architecture)
    assert bool(tied) is (spread == 0.4)
    assert {each.architecture for each in tied} <= set(found.order) - {best.architecture}
