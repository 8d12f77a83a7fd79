"""NNI's search strategies over our spaces: NNI's engine runs them within our budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni
from nni.mutable import Categorical, MutableDict
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import ExecutableModelSpace, RawFormatModelSpace
from nni.nas.strategy import Strategy
from nni.nas.strategy.middleware import Chain, Filter

from pipeline.search.base import Evaluator
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.workers import evaluated
from pipeline.search.journal import Candidate, Journal
from pipeline.spaces.base import Architecture, SearchSpace, architecture_of, canonical

PATIENCE = 1000
"""Proposals beyond the budgets in a row after which a strategy is stopped."""


class DecisionModelSpace(MutableDict):  # type: ignore[misc]
    """A search space as NNI sees it: a categorical choice for each decision.

    A frozen model is the architecture. Samples that differ only in decisions that are not to be made
    give the same one.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(
            {each.name: Categorical(list(each.choices), label=each.name) for each in space.decisions}
        )
        self._space = space

    def freeze(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture of a sample, a choice by name of the decision.

        Raises:
            SampleValidationError: the sample lacks a decision, or has a choice that is not allowed.
        """
        self.validate(sample)
        names = [decision.name for decision in self._space.decisions]
        return canonical(self._space, architecture_of(self._space, [(name, sample[name]) for name in names]))


@dataclass(frozen=True)
class StrategyRun:
    """What a strategy found.

    Attributes:
        candidates: different architectures, in the order in which they were first proposed.
        rejected: proposals beyond the budgets, which were not evaluated.
    """

    candidates: list[Candidate]
    rejected: int


def run_nni_strategy(
    constraints: Constraints,
    evaluator: Evaluator,
    strategy: Strategy,
    evaluations: int,
    journal: Path,
) -> StrategyRun:
    """Run one of NNI's multi-trial strategies within budgets, by NNI's sequential engine in this process.

    NNI's own filter refuses proposals beyond the budgets; after ``PATIENCE`` of them in a row the strategy
    is stopped. A candidate whose score fails is a failed model to NNI. What the journal holds is not
    evaluated
    again: run with the same strategy and seed, a search that was killed ends like one that was not.

    A score is to be large, so tuners that minimise by default have to be told: ``TPE("maximize")``.

    Args:
        constraints: space and budgets.
        evaluator: evaluates what the strategy proposes.
        strategy: fresh, e.g. ``nni.nas.strategy.RegularizedEvolution(seed=0)``.
        evaluations: models in the end; those in the journal count, and those that are proposed again.
        journal: file that is appended to, one line per candidate.

    Raises:
        BudgetError: no member of the space is known to keep the budgets.
        WorkFolderError: the journal cannot be read or written, or is damaged.
    """
    constraints.certificate.require_reachable()
    candidates: dict[str, Candidate] = {}
    written = Journal(journal)
    known = {candidate.architecture.identity: candidate for candidate in written.past}

    def evaluate(architecture: Architecture) -> None:
        identity = architecture.identity
        if identity not in known:
            known[identity] = evaluated(evaluator, architecture)
            written.append(known[identity])
        candidates.setdefault(identity, known[identity])
        score = known[identity].score
        if score is None:
            raise _NotEvaluatedError(known[identity].failure)
        nni.report_final_result(score.value)

    def within(model: ExecutableModelSpace) -> bool:
        return constraints.feasible(model.executable_model())

    budgets = Filter(within, patience=PATIENCE)
    engine = SequentialExecutionEngine(max_model_count=evaluations, continue_on_failure=True)
    model_space = _Models(DecisionModelSpace(constraints.space), FunctionalEvaluator(evaluate))
    Chain(strategy, budgets)(model_space, engine)
    return StrategyRun(list(candidates.values()), budgets.state_dict()["filter_count_total"])


class _Models(RawFormatModelSpace):  # type: ignore[misc]
    """Keeps a copy of each sample: the grid search goes on with the one that it gave."""

    def freeze(self, sample: Mapping[str, Any]) -> RawFormatModelSpace:
        return super().freeze(dict(sample))


class _NotEvaluatedError(Exception):
    """Tells NNI's engine that a model failed."""
