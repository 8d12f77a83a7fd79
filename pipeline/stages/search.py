"""Stage ``search``: candidates within the budgets, rated by short distillation, the best measured whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.measurement import Measurement, Verdict
from latency_db.estimate import Estimate
from pipeline.data.base import Dataset
from pipeline.search.base import Explorer
from pipeline.search.constraints import Constraints
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.context import Context, training_versions
from pipeline.stages.latency import Feasible, MeasuredNetwork, constraints_of, measure_networks
from pipeline.stages.space import Task

_SHORTLIST_ROUND = 4
"""Candidates measured whole at a time, best rated first, until enough keep their budgets."""


@dataclass(frozen=True)
class RatedCandidate:
    """A candidate with its rating, or the reason why it has none, and its estimates by target."""

    architecture: Architecture
    rating: float | None
    spread: float | None
    failure: str | None
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Searched:
    """All candidates, best rated first; those of them that were measured whole; the order in which to try.

    Attributes:
        candidates: every candidate that was rated or failed.
        measured: whole-network measurements of the best candidates, with untrained weights.
        order: architectures to train in full, best first; none measured over a budget.
    """

    candidates: tuple[RatedCandidate, ...]
    measured: tuple[MeasuredNetwork, ...]
    order: tuple[Architecture, ...]


def search_students(context: Context, task: Task, feasible: Feasible) -> Searched:
    """Rate candidates drawn under the upper end of their estimated latency, and put them in order."""
    recipe = context.recipe
    inputs = {
        "space": task.space.description,
        "data": task.data.summary.digest,
        "teacher": task.teacher.summary.digest,
        "limits_ns": feasible.limits_ns,
        "models": {
            name: [m.scale, m.per_block_ns, m.fixed_ns, m.upper_factor] for name, m in feasible.models.items()
        },
        "search": recipe.search.model_dump(mode="json"),
        "shortlist": recipe.verify.candidates,
        "seed": recipe.seed,
        "versions": training_versions(),
    }

    def compute(folder: Path) -> Searched:
        constraints = constraints_of(task.space, feasible)
        found = _rate(context, task, constraints, folder)
        rated = sorted(
            (_with_estimates(candidate, constraints) for candidate in found),
            key=lambda candidate: -1.0 if candidate.rating is None else candidate.rating,
            reverse=True,
        )
        measured, order = _shortlist(context, task.space, rated, feasible)
        return Searched(tuple(rated), tuple(measured), tuple(order))

    value = context.work.stage("search", inputs, Searched, compute)
    failed = sum(candidate.rating is None for candidate in value.candidates)
    context.reporter.note(
        f"search       {len(value.candidates)} candidates rated, {failed} failed; "
        f"best {value.candidates[0].rating or 0.0:.2%} on the validation slice; "
        f"{len(value.order)} measured within budget"
    )
    return value


def _rate(context: Context, task: Task, constraints: Constraints, folder: Path) -> list[Candidate]:
    from pipeline.search.loop import search
    from pipeline.search.rater import DistillationRater

    settings = context.recipe.search
    dataset = _limited(task.data.dataset, settings.train_limit)
    rater = DistillationRater(
        task.space,
        dataset,
        task.teacher.targets(dataset, settings.training.augment),
        settings.training,
        seed=context.recipe.seed,
    )
    with context.reporter.task("rating candidates", "candidates") as advance:
        return search(
            _explorer(context, constraints),
            rater,
            evaluations=settings.evaluations,
            journal=folder / "journal.jsonl",
            on_progress=lambda done, total, candidate: advance(done, total),
        )


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    """The first ``limit`` train images; rows come in a random order, so any prefix is a fair sample."""
    if limit is None:
        return dataset
    return replace(dataset, train=dataset.train.take(np.arange(min(limit, len(dataset.train)))))


def _explorer(context: Context, constraints: Constraints) -> Explorer:
    from pipeline.search.explorers.evolution import EvolutionExplorer
    from pipeline.search.explorers.random_explorer import RandomExplorer

    settings, seed = context.recipe.search, context.recipe.seed
    if settings.explorer == "random":
        return RandomExplorer(constraints, seed)
    return EvolutionExplorer(
        constraints, seed, population_size=settings.population, sample_size=settings.tournament
    )


def _with_estimates(candidate: Candidate, constraints: Constraints) -> RatedCandidate:
    rating = candidate.rating
    estimates = constraints.estimates(candidate.architecture)
    return RatedCandidate(
        candidate.architecture,
        rating.value if rating else None,
        rating.spread if rating else None,
        candidate.failure,
        estimates,
    )


def _shortlist(
    context: Context, space: Space, rated: Sequence[RatedCandidate], feasible: Feasible
) -> tuple[list[MeasuredNetwork], list[Architecture]]:
    """Measure the best rated candidates whole, some at a time, until enough of them keep every budget."""
    measured: list[MeasuredNetwork] = []
    order: list[Architecture] = []
    hopeful = [candidate for candidate in rated if candidate.rating is not None]
    for start in range(0, len(hopeful), _SHORTLIST_ROUND):
        if len(order) >= context.recipe.verify.candidates:
            break
        group = hopeful[start : start + _SHORTLIST_ROUND]
        kept = {candidate.architecture.identity for candidate in group}
        for target, outcomes in measure_networks(context, space, [c.architecture for c in group]).items():
            for candidate, outcome in zip(group, outcomes, strict=True):
                if not isinstance(outcome, Measurement) or outcome.verdict is Verdict.INVALID:
                    kept.discard(candidate.architecture.identity)
                    continue
                if outcome.latency.high_ns > feasible.limits_ns[str(target)]:
                    kept.discard(candidate.architecture.identity)
                estimate = candidate.estimates[str(target)]
                measured.append(
                    MeasuredNetwork(
                        candidate.architecture, str(target), outcome.latency, outcome.verdict, estimate
                    )
                )
        order += [c.architecture for c in group if c.architecture.identity in kept]
    return measured, order


def describe(candidate: RatedCandidate) -> dict[str, Any]:
    """A candidate as JSON for people's tools."""
    return {
        "architecture": dict(candidate.architecture.choices),
        "rating": candidate.rating,
        "spread": candidate.spread,
        "failure": candidate.failure,
        "predicted_ms": {name: e.value_ns / 1e6 for name, e in candidate.estimates.items()},
        "predicted_upper_ms": {name: e.high_ns / 1e6 for name, e in candidate.estimates.items()},
    }
