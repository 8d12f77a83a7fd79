"""Stage ``known``: candidates that searches under other budgets evaluated already.

The result is kept like that of any stage, so that a search sees the same again when it is gone on with,
whatever other searches have evaluated since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.digests import value_digest
from devices.words import count_of
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import Round
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.strategy import StrategySettings
from pipeline.stages.services import Services
from pipeline.work.canonical import canonical
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class KnownInput:
    """A search about to begin."""

    this: Round
    evaluation: Evaluation
    strategy: StrategySettings


@dataclass(frozen=True)
class KnownBefore:
    """Candidates within the limits, from searches that differ in the budgets alone.

    Attributes:
        candidates: in the order in which they were evaluated.
        drawn_as_freely: how many of them were drawn under limits that were nowhere tighter. They stand for as
            many evaluations: a search under the present limits would draw the like.
    """

    candidates: tuple[Candidate, ...] = ()
    drawn_as_freely: int = 0


def _told(given: KnownInput, value: KnownBefore) -> Sequence[str]:
    if not value.candidates:
        return ()
    wanted, free = given.strategy.evaluations, value.drawn_as_freely
    known = count_of(len(value.candidates), "candidate")
    return [
        f"known        {known} of earlier searches within these budgets, {free} of them drawn as freely as "
        f"now; at most {max(0, wanted - free)} of {wanted} evaluations are left"
    ]


@stage("known", tell=_told)
def known_before(given: KnownInput, folder: StageFolder, services: Services) -> KnownBefore:
    """Look up what is known."""
    constraints, drawn_by = given.this.predictors.constraints, drawer_of(given.this, given.strategy)
    found: dict[Architecture, Candidate] = {}
    free = set[Architecture]()
    for past in services.evaluated.of(evaluator_of(given.evaluation)):
        architecture = past.candidate.architecture
        if past.level == 0 and past.drawn_by == drawn_by and constraints.feasible(architecture):
            found.setdefault(architecture, past.candidate)
            if past.drawn_as_freely(constraints.limits_ns):
                free.add(architecture)
    return KnownBefore(tuple(found.values()), len(free))


def evaluator_of(evaluation: Evaluation) -> str:
    """The name under which scores are kept."""
    return value_digest(canonical(evaluation))


def drawer_of(this: Round, strategy: StrategySettings) -> str:
    """The name of who draws candidates: a strategy under limits that are not of latency."""
    return value_digest([canonical(strategy), this.predictors.max_parameters])
