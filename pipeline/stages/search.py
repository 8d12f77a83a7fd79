"""Stage ``search``: candidates within the budgets, evaluated in short; the best of them measured whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from pipeline.search.base import Evaluator, LeveledEvaluator, Score
from pipeline.search.journal import Candidate
from pipeline.search.rewards import hard_reward
from pipeline.spaces.base import Architecture
from pipeline.stages.context import Context
from pipeline.stages.exploring import Known, Learning, explore, rate_again
from pipeline.stages.networks import MeasuredNetwork
from pipeline.stages.outlook import Outlook

_SHORTLIST_ROUND = 4
"""Candidates measured whole at a time, best evaluated first, until enough keep their budgets."""


@dataclass(frozen=True)
class EvaluatedCandidate:
    """A candidate with its score, or the reason why it has none.

    Attributes:
        architecture: what was evaluated.
        score: in short; ``None`` if that failed.
        spread: one standard error of the score, if known.
        failure: why there is no score.
        estimates: latency by target, from the models at the end of the search.
        reevaluation: of the best ones, from other weights and on all images, if asked for.
    """

    architecture: Architecture
    score: float | None
    spread: float | None
    failure: str | None
    estimates: Mapping[str, Estimate]
    reevaluation: float | None = None

    @property
    def candidate(self) -> Candidate:
        """As the search saw it."""
        score = None if self.score is None else Score(self.score, self.spread)
        return Candidate(self.architecture, score, self.failure)


@dataclass(frozen=True)
class Searched:
    """All candidates, best first; those of them that were measured whole; the order in which to try.

    Attributes:
        candidates: every candidate that was evaluated or failed, those of earlier rounds as far as they are
            within the tighter limits; those evaluated again stand before the others.
        measured: whole-network measurements of the best candidates, with untrained weights, each beside what
            was predicted before.
        order: architectures to train in full, best first; none measured over a budget.
        evaluated_by: what a score is: accuracy on the validation slice, or the loss of the blocks with a
            minus.
    """

    candidates: tuple[EvaluatedCandidate, ...]
    measured: tuple[MeasuredNetwork, ...]
    order: tuple[Architecture, ...]
    evaluated_by: Literal["accuracy", "loss"] = "accuracy"


@dataclass(frozen=True)
class Scores:
    """What makes the evaluator, when one is needed, and all that decides its scores, as JSON."""

    make: Callable[[], Evaluator]
    decided_by: Any


@dataclass(frozen=True)
class Round:
    """One search; a second one begins where the winners of the first broke their budgets.

    Attributes:
        outlook: what is known of latencies.
        number: 1 for the first.
        known: candidates of earlier rounds, which are not evaluated again.
        rejected: identities of architectures that broke a budget when they were verified.
    """

    outlook: Outlook
    number: int = 1
    known: tuple[Candidate, ...] = ()
    rejected: frozenset[str] = frozenset()


def search_round(context: Context, scores: Scores, this: Round) -> Searched:
    """Rate candidates drawn under the upper end of their estimated latency, and put them in order.

    Raises:
        BudgetError: no member of the space can keep the budgets, as they are tightened in this round.
        WorkFolderError: a search of this recipe was interrupted, and the recipe changed since.
    """
    recipe, outlook = context.recipe, this.outlook
    settings = recipe.search
    inputs = {
        **round_inputs(context, this),
        "scores": scores.decided_by,
        "method": recipe.method,
        "search": settings.model_dump(mode="json", exclude={"finalists", "rounds"}),
    }

    def compute(folder: Path) -> Searched:
        evaluator, learning = scores.make(), Learning(context, outlook, folder)
        known = {each.architecture: each.score for each in this.known if each.score is not None}
        fresh = explore(context, Known(evaluator, known), learning, folder, this.number)
        within = [each for each in this.known if outlook.constraints.feasible(each.architecture)]
        every = {each.architecture: each for each in (*within, *fresh)}
        ranked = _ranked(context, learning.outlook, list(every.values()))
        best, rest = ranked[: settings.reevaluated], ranked[settings.reevaluated :]
        again: dict[Architecture, Candidate] = {}
        if best and isinstance(evaluator, LeveledEvaluator):
            reevaluations = rate_again(
                evaluator.at(1), [each.architecture for each in best], folder / "again.jsonl"
            )
            best = _ranked(context, learning.outlook, reevaluations)
            again = {each.architecture: each for each in best}
        ranked = [*best, *rest]
        order = shortlist(context, learning, ranked, this)
        return Searched(
            tuple(
                described(every[each.architecture], again.get(each.architecture), learning.outlook)
                for each in ranked
            ),
            tuple(learning.measured.values()),
            tuple(order),
        )

    value = context.work.stage("search", inputs, Searched, compute, asked=recipe.model_dump(mode="json"))
    failed = sum(candidate.score is None for candidate in value.candidates)
    context.reporter.note(
        f"search       {len(value.candidates)} candidates evaluated, {failed} failed; "
        f"best {value.candidates[0].score or 0.0:.2%} on the validation slice; "
        f"{len(value.order)} measured within budget"
    )
    return value


def _ranked(context: Context, outlook: Outlook, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best first: by the score, and by the latency where a budget is soft; failures last."""
    reward = outlook.reward(context.recipe.search.exponent, everywhere=False) or hard_reward

    def merit(candidate: Candidate) -> float:
        return -math.inf if candidate.score is None else reward(candidate.architecture, candidate.score)

    return sorted(candidates, key=merit, reverse=True)


def shortlist(
    context: Context, learning: Learning, candidates: Sequence[Candidate], this: Round
) -> list[Architecture]:
    """Measure candidates whole, some at a time, best first, until enough of them keep every budget."""
    hopeful = [
        each.architecture
        for each in candidates
        if each.score is not None and each.architecture.identity not in this.rejected
    ]
    order: list[Architecture] = []
    for start in range(0, len(hopeful), _SHORTLIST_ROUND):
        if len(order) >= context.tries:
            break
        group = hopeful[start : start + _SHORTLIST_ROUND]
        measured = learning.measure(group)
        order += [
            architecture
            for architecture in group
            if learning.outlook.kept_by([each for each in measured if each.architecture == architecture])
        ]
    return order


def described(candidate: Candidate, again: Candidate | None, outlook: Outlook) -> EvaluatedCandidate:
    """A candidate with what is predicted of it, and perhaps evaluated again."""
    score, reevaluation = candidate.score, again.score if again else None
    return EvaluatedCandidate(
        candidate.architecture,
        score.value if score else None,
        score.spread if score else None,
        candidate.failure,
        outlook.estimates(candidate.architecture),
        reevaluation.value if reevaluation else None,
    )


def round_inputs(context: Context, this: Round) -> dict[str, Any]:
    """What decides a round besides the scores, as JSON."""
    outlook = this.outlook
    return {
        "space": outlook.space.description,
        "limits_ns": outlook.limits_ns,
        "soft": sorted(outlook.soft),
        "factors": outlook.factors,
        "models": {name: _coefficients(model) for name, model in outlook.models.items()},
        "shortlist": context.tries,
        "seed": context.recipe.seed,
        "round": [this.number, sorted(this.rejected)],
    }


def _coefficients(model: NetworkModel) -> list[float]:
    per_byte = [model.boundary_ns_per_byte, model.weights_ns_per_byte]
    return [model.scale, model.per_block_ns, model.fixed_ns, model.upper_factor, *per_byte]


def describe(candidate: EvaluatedCandidate, searched: Searched) -> dict[str, Any]:
    """A candidate as JSON for people's tools."""
    measured = [each for each in searched.measured if each.architecture == candidate.architecture]
    return {
        "architecture": dict(candidate.architecture.choices),
        "score": candidate.score,
        "reevaluation": candidate.reevaluation,
        "spread": candidate.spread,
        "failure": candidate.failure,
        "predicted_ms": {name: e.value_ns / 1e6 for name, e in candidate.estimates.items()},
        "predicted_lower_ms": {name: e.low_ns / 1e6 for name, e in candidate.estimates.items()},
        "predicted_upper_ms": {name: e.high_ns / 1e6 for name, e in candidate.estimates.items()},
        "measured_ms": {each.target: each.measured.value_ns / 1e6 for each in measured},
        "measured_upper_ms": {each.target: each.measured.high_ns / 1e6 for each in measured},
    }
