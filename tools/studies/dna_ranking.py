"""How well scores rank networks: Kendall's tau and Spearman's rho with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Interval = tuple[float, float, float] | None
"""A value with the ends of its interval; None where it is not defined, as when all scores are equal."""

RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class Ranking:
    """How one evaluator ranks.

    Attributes:
        tau: Kendall's tau-b over all pairs of networks.
        rho: Spearman's rho.
        tau_inside: tau-b over the pairs of networks of one band.
        lead: by how much ``tau`` of the first evaluator is larger than this one's, on the same networks.
        lead_inside: likewise for ``tau_inside``.
    """

    tau: Interval
    rho: Interval
    tau_inside: Interval
    lead: Interval
    lead_inside: Interval


def rank(scores: Mapping[str, Floats], accuracies: Floats, bands: Integers) -> dict[str, Ranking]:
    """Compare the scores (n,) of evaluators with accuracies (n,) of networks in bands (n,) of equal cost.

    Networks are drawn with replacement: from all of them, and band by band for what is inside the bands.
    """
    together = np.zeros_like(bands)
    first = next(iter(scores.values()))
    found = {}
    for name, each in scores.items():

        def lead(index: Integers, groups: Integers, other: Floats = each) -> float:
            y = accuracies[index]
            return tau(first[index], y, groups) - tau(other[index], y, groups)

        def own(index: Integers, groups: Integers, x: Floats = each) -> float:
            return tau(x[index], accuracies[index], groups)

        def spearman(index: Integers, groups: Integers, x: Floats = each) -> float:
            return rho(x[index], accuracies[index])

        found[name] = Ranking(
            _with_interval(own, together),
            _with_interval(spearman, together),
            _with_interval(own, bands),
            _with_interval(lead, together),
            _with_interval(lead, bands),
        )
    return found


def tau(x: Floats, y: Floats, groups: Integers) -> float:
    """Kendall's tau-b, pooled over the pairs inside groups (not in scipy); NaN where one side is constant."""
    one, other = np.nonzero(np.triu(groups[:, None] == groups, 1))
    of_x, of_y = np.sign(x[one] - x[other]), np.sign(y[one] - y[other])
    ordered = float(np.count_nonzero(of_x)) * float(np.count_nonzero(of_y))
    return float(of_x @ of_y) / math.sqrt(ordered) if ordered else math.nan


def rho(x: Floats, y: Floats) -> float:
    """Spearman's rank correlation; equal values share their mean rank. NaN where one side has one value."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def _with_interval(statistic: Callable[[Integers, Integers], float], groups: Integers) -> Interval:
    generator = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    value = statistic(np.arange(len(groups)), groups)
    values = []
    for _ in range(RESAMPLES):
        index = np.concatenate([generator.choice(each, len(each)) for each in members])
        values.append(statistic(index, groups[index]))
    defined = np.array(values)[np.isfinite(values)]
    if math.isnan(value) or not len(defined):
        return None
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return value, float(low), float(high)
