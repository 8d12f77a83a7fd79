"""Latency of whole networks from the latencies of their blocks: a hypothesis, tested on measured networks.

A block measured alone pays for one invocation of the runtime, and runs with its data in the caches; inside a
network it does not. The model therefore fits

    latency = scale * sum of blocks + per_block * number of blocks + fixed

to whole networks that were measured, and states how far it was off on networks that it had not seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.table import LatencyTable

MIN_NETWORKS = 6

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkModel:
    """Predicts latencies of networks on the target of ``table``.

    Attributes:
        scale: factor on the sum of the blocks' latencies, not negative.
        per_block_ns: cost of one more block. May be negative (a block alone pays for an invocation that a
            network pays once), but never so far that a block of the table costs less than nothing.
        fixed_ns: cost of a network without blocks, not negative.
        upper_factor: an interval is ``value / upper_factor`` to ``value * upper_factor``.
        coverage: share of networks that the interval claims to hold; at most n / (n + 1) for n networks.
        fitted_networks: number of measured networks behind the fit.
    """

    table: LatencyTable
    scale: float
    per_block_ns: float
    fixed_ns: float
    upper_factor: float
    coverage: float
    fitted_networks: int

    @classmethod
    def fit(
        cls,
        table: LatencyTable,
        networks: Sequence[Sequence[str]],
        measured_ns: Sequence[float],
        coverage: float = 0.9,
    ) -> Self:
        """Fit on measured networks, each given by the identities of its blocks.

        The fit minimises relative errors, with Huber's weights against outliers. The interval is conformal
        over leave-one-out residuals (the jackknife of Barber et al., "Predictive inference with the
        jackknife+", 2021): the ceil((n + 1) * coverage)-th smallest of the n absolute log ratios of measured
        to predicted. Where n is too small for ``coverage``, the largest is taken and the coverage that it
        has, n / (n + 1), is stated instead. It holds for networks drawn like the fitted ones.

        Raises:
            EstimateError: fewer than 6 networks, a network whose blocks were not measured or cannot run, or
                a latency that is not positive.
            ValueError: the lengths differ, or ``coverage`` is outside 0..1.
        """
        if len(networks) != len(measured_ns):
            raise ValueError(f"{len(networks)} networks with {len(measured_ns)} latencies")
        if not 0.0 < coverage < 1.0:
            raise ValueError(f"coverage {coverage} is outside 0..1")
        if len(networks) < MIN_NETWORKS:
            raise EstimateError(
                f"a latency model needs at least {MIN_NETWORKS} measured networks, {len(networks)} are given",
                fix="measure more networks of the space",
            )
        measured = np.asarray(measured_ns, np.float64)
        sums, counts = _sums_and_counts(table, networks)
        if not (np.isfinite(measured) & (measured > 0)).all() or not np.isfinite(sums).all():
            raise EstimateError(
                "a latency model can only be fitted on networks that ran",
                why="a latency is not positive, or a network holds a block that cannot run on the target",
                fix="leave out the networks that could not be measured",
            )
        # With the cheapest block taken off every block, non-negative coefficients are the same as
        # non-negative costs of all blocks of the table.
        cheapest = min((row.value_ns for row in table.rows.values()), default=0.0)
        features = np.stack([sums - cheapest * counts, counts, np.ones_like(counts)], axis=1)
        scale, rest_per_block, fixed = _fit_relative(features, measured).tolist()
        factor, reached = _conformal_factor(_leave_one_out_scores(features, measured), coverage)
        if math.isinf(factor):
            raise EstimateError(
                "the latencies of these networks do not follow from those of their blocks",
                why="a model of all other networks predicts that one of them takes no time",
                fix="measure more networks of the space",
            )
        per_block = rest_per_block - scale * cheapest
        return cls(table, scale, per_block, fixed, factor, reached, len(networks))

    def estimate(self, networks: Sequence[Sequence[str]]) -> list[Estimate]:
        """One estimate per network, in order; infinite where a block cannot run on the target.

        Raises:
            EstimateError: a block was never measured.
        """
        sums, counts = _sums_and_counts(self.table, networks)
        with np.errstate(invalid="ignore"):
            values = self.scale * sums + self.per_block_ns * counts + self.fixed_ns
        values = np.where(np.isfinite(sums), values, np.inf)
        return [
            Estimate(value / self.upper_factor, value, value * self.upper_factor, self.coverage)
            for value in values.tolist()
        ]

    def block_cost_ns(self, block: str) -> float:
        """What a block adds to a network; infinite if it cannot run on the target.

        Raises:
            EstimateError: the block was never measured.
        """
        latency = self.table.latency_ns(block)
        return math.inf if math.isinf(latency) else max(0.0, self.scale * latency + self.per_block_ns)


def nonnegative_least_squares(features: _Floats, goals: _Floats) -> _Floats:
    """Coefficients >= 0, shape ``(k,)``, that minimise ``|features @ c - goals|``; features ``(n, k)``.

    The optimum is an ordinary least-squares solution on the columns that are not held at zero, so all
    subsets of columns are tried; of equally good ones the smallest wins.
    """
    columns = features.shape[1]
    best, best_error = np.zeros(columns), float(goals @ goals)
    tolerance = 1e-20 * best_error
    scales = np.maximum(np.linalg.norm(features, axis=0), np.finfo(np.float64).tiny)
    for size in range(1, columns + 1):
        for subset in itertools.combinations(range(columns), size):
            chosen = list(subset)
            solution, _, rank, _ = np.linalg.lstsq(features[:, chosen] / scales[chosen], goals, rcond=None)
            if rank < size or (solution < 0).any():
                continue
            candidate = np.zeros(columns)
            candidate[chosen] = solution / scales[chosen]
            error = float(np.square(features @ candidate - goals).sum())
            if error < best_error - tolerance:
                best, best_error = candidate, error
    return best


def _fit_relative(features: _Floats, measured: _Floats) -> _Floats:
    """Non-negative fit of relative errors, reweighted after Huber (1964) with k = 1.345 robust deviations."""
    relative = features / measured[:, None]
    weights = np.ones_like(measured)
    coefficients = np.zeros(features.shape[1])
    for _ in range(10):
        root = np.sqrt(weights)
        coefficients = nonnegative_least_squares(relative * root[:, None], root)
        residuals = np.abs(relative @ coefficients - 1.0)
        limit = 1.345 * 1.4826 * float(np.median(residuals))
        if limit <= 1e-12:
            break
        weights = np.minimum(1.0, limit / np.maximum(residuals, 1e-300))
    return coefficients


def _leave_one_out_scores(features: _Floats, measured: _Floats) -> _Floats:
    """Absolute log ratio of each network's measured latency to its prediction by a fit without it."""
    scores = np.empty_like(measured)
    for left_out in range(len(measured)):
        kept = np.arange(len(measured)) != left_out
        predicted = float(features[left_out] @ _fit_relative(features[kept], measured[kept]))
        scores[left_out] = abs(math.log(measured[left_out] / predicted)) if predicted > 0 else math.inf
    return scores


def _conformal_factor(scores: _Floats, coverage: float) -> tuple[float, float]:
    """The factor on either side of a prediction, and the coverage that it has."""
    count = len(scores)
    rank = min(math.ceil((count + 1) * coverage), count)
    return math.exp(float(np.sort(scores)[rank - 1])), min(coverage, rank / (count + 1))


def _sums_and_counts(table: LatencyTable, networks: Sequence[Sequence[str]]) -> tuple[_Floats, _Floats]:
    """Sum of block latencies (infinite where a block cannot run) and number of blocks, per network."""
    names = sorted(set(itertools.chain.from_iterable(networks)))
    table.require(names)
    positions = {name: position for position, name in enumerate(names)}
    latencies = np.array([table.latency_ns(name) for name in names], np.float64)
    counts = np.array([len(network) for network in networks], np.int64)
    flat = np.fromiter((positions[name] for network in networks for name in network), np.int64, counts.sum())
    owners = np.repeat(np.arange(len(networks)), counts)
    sums = np.bincount(owners, weights=latencies[flat], minlength=len(networks))
    return sums.astype(np.float64), counts.astype(np.float64)
