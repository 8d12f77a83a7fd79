"""How much of the budgets is used: what size told the scores, and why a winner leaves something unused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from devices.words import count_of
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.journal import Candidate
from pipeline.search.strategies.base import tau
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import EvaluatedCandidate, Searched

_NEAR = 0.95
"""Share of a limit beyond which hardly anything larger fits."""


def size_tau(constraints: Constraints, candidates: Sequence[Candidate]) -> float | None:
    """Kendall's tau between scores and shares of the limits that are used; ``None`` for one score."""
    scored = [each for each in candidates if each.score is not None]
    if len(scored) < 2:
        return None
    uses = np.array([constraints.use(each.architecture) for each in scored])
    return tau(uses, [each.score.value for each in scored if each.score is not None])


def why_unused(
    searched: Searched, architecture: Architecture, limits_ns: Mapping[str, float], soft: Collection[str]
) -> dict[str, str]:
    """Why a winner takes less than its budgets, in words, by target; nothing of what limits nothing.

    Args:
        searched: the search that found it.
        architecture: of the winner.
        limits_ns: by target.
        soft: targets whose budgets are only preferences.
    """
    found = next((each for each in searched.candidates if each.architecture == architecture), None)
    limits = {name: limit for name, limit in limits_ns.items() if name not in soft}
    if found is None or not limits:
        return {}
    shares = _shares(found, limits)
    nearest = max(shares, key=shares.__getitem__)
    if shares[nearest] < _NEAR:
        return dict.fromkeys(limits, _not_larger(searched, found, limits))
    margin = f"the prediction allowed for up to {shares[nearest]:.0%} of it"
    return {name: margin if name == nearest else f"the budget on {nearest} is nearer" for name in limits}


def _not_larger(searched: Searched, found: EvaluatedCandidate, limits: Mapping[str, float]) -> str:
    if searched.could_grow is None:
        return "no network within the budgets was held for better"
    if found.architecture not in searched.could_grow:
        return "the next larger choice of any decision is beyond a limit"
    use = max(_shares(found, limits).values())
    larger = sum(
        each.score is not None and max(_shares(each, limits).values()) > use for each in searched.candidates
    )
    if not larger:
        return "no larger candidate was evaluated; more search.evaluations try some"
    told = "" if searched.size_tau is None else f" (tau of size and score {searched.size_tau:.2f})"
    return f"{count_of(larger, 'larger candidate')} evaluated, and not preferred{told}"


def _shares(candidate: EvaluatedCandidate, limits: Mapping[str, float]) -> dict[str, float]:
    return {name: candidate.estimates[name].high_ns / limit for name, limit in limits.items()}
