"""Stage ``search`` of method ``dna``: the best networks by their blocks' scores, selected exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.words import count_of
from pipeline.errors import BudgetError
from pipeline.search.base import Score
from pipeline.search.journal import Candidate
from pipeline.spaces.dna.space import DnaSpace
from pipeline.stages.searching.candidates import EvaluatedCandidate, Round, Searched, shortlist
from pipeline.stages.searching.learning import Learning, MeasuredOn
from pipeline.stages.searching.scores import Scores
from pipeline.stages.services import Services
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class SelectionInput:
    """One round of a selection: from these scores, so many networks, the best measured ``where``."""

    this: Round
    scores: Scores
    count: int
    where: MeasuredOn


def _told(given: SelectionInput, value: Searched) -> Sequence[str]:
    return [
        f"search       {count_of(len(value.candidates), 'network')} selected, smallest loss "
        f"{-(value.candidates[0].score or 0.0):.4f}; {len(value.order)} of those measured go on"
    ]


@stage("search", packages=("scipy",), tell=_told)
def select_candidates(given: SelectionInput, folder: StageFolder, services: Services) -> Searched:
    """Select the best networks within the limits, and measure them.

    Raises:
        BudgetError: no network of the space keeps the budgets.
    """
    from pipeline.methods.dna.selecting import select_architectures

    this, predictors = given.this, given.this.predictors
    space = predictors.space
    assert isinstance(space, DnaSpace)
    count = given.count + len(this.rejected)
    limits = predictors.constraints.limits_ns
    found = select_architectures(space, given.scores.blocks, predictors.latency_models, limits, count=count)
    if not found.selected:
        raise BudgetError("no network of the space keeps the budgets", fix="loosen them")
    candidates = [Candidate(each.architecture, Score(-each.loss)) for each in found.selected]
    learning = Learning(services, given.where, predictors, folder)
    order = shortlist(learning, candidates, this)
    return Searched(
        tuple(EvaluatedCandidate.of(each, None, learning.predictors) for each in candidates),
        tuple(learning.measured.values()),
        tuple(order),
        evaluated_by="loss",
    )
