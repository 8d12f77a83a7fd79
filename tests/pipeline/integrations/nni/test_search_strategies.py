"""NNI's multi-trial strategies over our spaces, run by NNI's own engine."""

from __future__ import annotations

import json
import logging

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni.mutable import SampleValidationError
from nni.nas.strategy import TPE, GridSearch, Random, RegularizedEvolution

from pipeline.errors import BudgetError
from pipeline.integrations.nni import strategies
from pipeline.integrations.nni.strategies import DecisionModelSpace, run_nni_strategy
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.spaces.base import Condition, Decision, check_architecture
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.factorised import CostTable, FactorisedSpace

LAYERS = {f"layer{number}": (1, 2, 3) for number in range(4)}
SPACE = FactorisedSpace(LAYERS)


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("nni").setLevel(logging.CRITICAL)


def budgeted(limit_ns: float = 9.5) -> Constraints:
    """A layer takes as many nanoseconds as its choice says."""
    costs = CostTable({option: float(option.choice) for option in SPACE.distinct_blocks()})
    return Constraints(SPACE, {"board": costs}, {"board": limit_ns})


class Sum:
    def __init__(self):
        self.evaluated = []

    def evaluate(self, architecture):
        self.evaluated.append(architecture)
        return Score(float(sum(choice for _, choice in architecture.choices)))


def run(strategy, tmp_path, evaluations=12, evaluator=None, constraints=None):
    return run_nni_strategy(
        constraints or budgeted(), evaluator or Sum(), strategy, evaluations, tmp_path / "journal.jsonl"
    )


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: Random(seed=0),
        lambda: GridSearch(seed=0),
        lambda: RegularizedEvolution(population_size=4, sample_size=2, mutation_prob=0.3, seed=0),
    ],
    ids=["random", "grid", "evolution"],
)
def test_strategy_rates_different_members_within_the_budget_and_counts_what_it_refused(strategy, tmp_path):
    evaluator = Sum()
    found = run(strategy(), tmp_path, evaluator=evaluator)
    assert len(found.candidates) == 12
    assert evaluator.evaluated == [candidate.architecture for candidate in found.candidates]
    for candidate in found.candidates:
        check_architecture(SPACE, candidate.architecture)
        assert budgeted().feasible(candidate.architecture)
    assert found.rejected > 0
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [candidate.to_json() for candidate in found.candidates]


def test_tpe_is_run_with_our_scores(tmp_path):
    # NNI waits a second after each proposal of a tuner.
    found = run(TPE("maximize", seed=1), tmp_path, evaluations=2, constraints=budgeted(12.5))
    assert len(found.candidates) == 2
    assert found.rejected == 0


def test_run_goes_on_from_its_journal(tmp_path):
    first = run(Random(seed=3), tmp_path, evaluations=5)
    evaluator = Sum()
    whole = run(Random(seed=3), tmp_path, evaluations=9, evaluator=evaluator)
    assert whole.candidates[:5] == first.candidates
    assert len(evaluator.evaluated) == 4


def test_failed_score_is_a_failed_candidate_and_the_run_goes_on(tmp_path):
    class Fragile(Sum):
        def evaluate(self, architecture):
            if architecture["layer0"] == 1:
                raise RuntimeError("it did not train")
            return super().evaluate(architecture)

    found = run(RegularizedEvolution(population_size=4, sample_size=2, seed=0), tmp_path, evaluator=Fragile())
    failures = [candidate.failure for candidate in found.candidates if candidate.score is None]
    assert set(failures) == {"RuntimeError: it did not train"}
    assert len(failures) < len(found.candidates)


def test_run_refuses_a_budget_that_no_member_keeps(tmp_path):
    with pytest.raises(BudgetError):
        run(Random(seed=0), tmp_path, constraints=budgeted(3.5))


def test_strategy_that_finds_nothing_within_the_budget_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(strategies, "PATIENCE", 20)
    found = run(GridSearch(shuffle=False), tmp_path, constraints=budgeted(4.5))
    # The grid begins with the one member that is within the budget.
    assert len(found.candidates) == 1
    assert found.rejected == 20


class Optional(DecisionSpace):
    decisions = (
        Decision("second", (False, True)),
        Decision("kernel", (3, 5), Condition("second", (True,))),
    )


def test_samples_that_differ_in_what_is_not_made_are_the_same_architecture():
    models = DecisionModelSpace(Optional())
    architectures = {models.freeze({"second": False, "kernel": kernel}) for kernel in (3, 5)}
    assert len(architectures) == 1
    assert len({models.freeze({"second": True, "kernel": kernel}) for kernel in (3, 5)}) == 2


def test_sample_with_a_choice_that_is_not_allowed_is_refused():
    with pytest.raises(SampleValidationError):
        DecisionModelSpace(Optional()).freeze({"second": True, "kernel": 7})
