"""Latency of whole networks from the latencies of their blocks: a hypothesis, tested on measured networks.

A block measured alone pays for one invocation of the runtime, passes its input and output through boundaries
that a network does not have, and keeps its weights in the caches; inside a network it does not. The model
therefore fits

    latency = scale * sum of blocks + per_block * number of blocks
              + boundary * bytes across boundaries + weights * bytes of weights + fixed

to whole networks that were measured, and states how far it was off on networks that it had not seen.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from devices.measurement import SPREAD_DEGRADED, BetweenBatches, Interval
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.models.features import Floats, Terms, block_properties, network_properties
from latency_db.models.fitting import fit_relative, jackknife_factor, left_out_predictions
from latency_db.tables.table import LatencyTable

MIN_NETWORKS = 6


@dataclass(frozen=True)
class NetworkModel:
    """Predicts latencies of networks on the target of ``table``, at its canary, and only under its key.

    Attributes:
        scale: factor on the sum of the blocks' latencies, not negative.
        per_block_ns: cost of one more block. May be negative (a block alone pays for an invocation that a
            network pays once), but never so far that a block of the table costs less than nothing.
        fixed_ns: cost of a network without blocks, not negative.
        upper_factor: an interval is ``value / upper_factor`` to ``value * upper_factor``.
        coverage: share of networks that the interval claims to hold; at most n / (n + 1) for n scored ones.
        fitted_networks: number of measured networks behind the fit.
        boundary_ns_per_byte: for what crosses a block's boundaries; negative like ``per_block_ns``.
        weights_ns_per_byte: for a block's weights, not negative.
        level: part of ``upper_factor``, as a margin of the logarithm, that is common to all networks: how far
            the machine may be from where it was when the table was measured.
    """

    table: LatencyTable
    scale: float
    per_block_ns: float
    fixed_ns: float
    upper_factor: float
    coverage: float
    fitted_networks: int
    boundary_ns_per_byte: float = 0.0
    weights_ns_per_byte: float = 0.0
    level: float = 0.0

    @classmethod
    def fit(
        cls,
        table: LatencyTable,
        networks: Sequence[Sequence[str]],
        measured_ns: Sequence[float],
        coverage: float = 0.9,
        *,
        scored: Sequence[int] | None = None,
        canaries_ns: Sequence[float | None] | None = None,
        batches: Sequence[Hashable] | None = None,
        disturbed: Mapping[int, Interval] | None = None,
    ) -> Self:
        """Fit on measured networks, each given by the identities of its blocks.

        The fit minimises relative errors, with Huber's weights against outliers; see ``features.Terms`` for
        its terms. The interval is that of a jackknife: each scored network is predicted by a fit without it,
        and the interval is made of how far these predictions were off. Where networks were measured in
        several batches, each is left out with its whole batch. A plain jackknife has no guarantee of coverage
        for finite samples, as jackknife+ has (Barber et al., "Predictive inference with the jackknife+",
        2021, section 1.2); what it covers in practice is measured, see docs/results.

        Networks whose measurement was disturbed are left out where enough others remain. Elsewhere they weigh
        less, by the inverse square of their intervals' widths, and count as off by the end of the interval
        that is farther from the prediction.

        Args:
            table: latencies and sizes of the blocks.
            networks: identities of blocks, one sequence per network.
            measured_ns: their latencies.
            coverage: wanted for the intervals.
            scored: indices of the networks whose residuals make the interval: those that were drawn at
                random, where others were chosen for the fit. All of them, if None.
            canaries_ns: how fast the machine was when each network was measured (``Measurement.canary_ns``).
            batches: in which batch each was measured, as by ``Measurement.started_at``; all in one, if None.
            disturbed: intervals of the networks, by index, whose measurements are invalid.

        Raises:
            EstimateError: fewer than 6 networks, a network whose blocks have no latency, or a latency that is
                not positive.
            ValueError: the lengths differ, ``coverage`` is outside 0..1, or ``scored`` is empty.
        """
        if len(networks) != len(measured_ns):
            raise ValueError(f"{len(networks)} networks with {len(measured_ns)} latencies")
        if not 0.0 < coverage < 1.0:
            raise ValueError(f"coverage {coverage} is outside 0..1")
        if scored is not None and not scored:
            raise ValueError("no network is scored")
        if len(networks) < MIN_NETWORKS:
            raise EstimateError(
                f"a latency model needs at least {MIN_NETWORKS} measured networks, {len(networks)} are there",
                fix="measure more networks of the space",
            )
        properties = network_properties(table, networks)
        slowdowns = np.array([table.slowdown(each) for each in canaries_ns or [None] * len(networks)])
        measured = np.array(measured_ns, np.float64) / slowdowns
        if not (np.isfinite(measured) & (measured > 0)).all() or not np.isfinite(properties).all():
            raise EstimateError(
                "a latency model can only be fitted on networks that ran",
                why="a latency is not positive, or a network holds a block that has none on the target",
                fix="leave out the networks that could not be measured",
            )
        terms = Terms.of(table).matrix
        features = np.column_stack([properties @ terms.T, np.ones(len(networks))])
        among = list(range(len(networks)) if scored is None else scored)
        intervals = {
            index: (interval.low_ns / slowdowns[index], interval.high_ns / slowdowns[index])
            for index, interval in (disturbed or {}).items()
        }
        kept = _kept(len(networks), features.shape[1], among, intervals)
        weights = np.array([_weight(measured[index], intervals.get(index)) for index in kept])
        *coefficients, fixed = fit_relative(features[kept], measured[kept], weights).tolist()
        scale, per_block, boundary, weights_rate = (np.array(coefficients) @ terms).tolist()
        wanted = [position for position, index in enumerate(kept) if index in set(among)]
        groups = [(batches or [None] * len(networks))[index] for index in kept]
        predicted = left_out_predictions(features[kept], measured[kept], wanted, groups, weights)
        ends = [intervals.get(kept[each], (measured[kept[each]],)) for each in wanted]
        scores = np.array([_score(value, its_ends) for value, its_ends in zip(predicted, ends, strict=True)])
        factor, reached = jackknife_factor(scores, coverage)
        if math.isinf(factor):
            raise EstimateError(
                "the latencies of these networks do not follow from those of their blocks",
                why="a model of all other networks predicts that one of them takes no time",
                fix="measure more networks of the space",
            )
        return cls(table, scale, per_block, fixed, factor, reached, len(kept), boundary, weights_rate)

    @classmethod
    def of_all(
        cls,
        table: LatencyTable,
        networks: Sequence[Sequence[str]],
        measured: Sequence[Interval],
        canaries_ns: Sequence[float | None],
    ) -> Self:
        """The model of a space of which all networks were measured: one factor on the sum of blocks.

        No network remains unseen, so the interval is what holds the measured interval of every one.

        Args:
            table: latencies of the blocks.
            networks: identities of blocks, one sequence per network.
            measured: their latencies.
            canaries_ns: as of ``fit``.

        Raises:
            EstimateError: no networks, or one whose blocks have no latency.
        """
        sums_ns = network_properties(table, networks)[:, 0]
        if not len(sums_ns) or not (np.isfinite(sums_ns) & (sums_ns > 0)).all():
            raise EstimateError(
                "a latency model can only be made of networks that ran",
                why="none was measured, or one holds a block that has no latency on the target",
                fix="leave out the networks that could not be measured",
            )
        slowdowns = np.array([table.slowdown(each) for each in canaries_ns])
        values_ns = [(each.low_ns, each.value_ns, each.high_ns) for each in measured]
        ratios = np.log(np.maximum(values_ns, 1e-300) / (sums_ns * slowdowns)[:, None])
        level = float(ratios[:, 1].mean())
        factor = math.exp(float(np.abs(ratios - level).max()))
        coverage = min(each.confidence for each in measured)
        return cls(table, math.exp(level), 0.0, 0.0, factor, coverage, len(networks))

    def at_another_time(self, between: BetweenBatches) -> Self:
        """The model with intervals that hold on the machine as it usually is."""
        return self.with_level(between.margin(self.coverage))

    def with_level(self, level: float) -> Self:
        """The model with another common margin; 0 for networks against each other, as in relative budgets."""
        own = math.sqrt(max(math.log(self.upper_factor) ** 2 - self.level**2, 0.0))
        return replace(self, upper_factor=math.exp(math.hypot(own, level)), level=level)

    def estimate(self, networks: Sequence[Sequence[str]]) -> list[Estimate]:
        """One estimate per network, in order; infinite where a block has no latency on the target.

        Raises:
            EstimateError: the table does not know a block.
        """
        properties = network_properties(self.table, networks)
        values = self._costs(properties) + self.fixed_ns
        return [self.around(value) for value in values.tolist()]

    def around(self, value_ns: float) -> Estimate:
        """The estimate whose value is ``value_ns``."""
        return Estimate(value_ns / self.upper_factor, value_ns, value_ns * self.upper_factor, self.coverage)

    def block_cost_ns(self, block: str) -> float:
        """What a block adds to a network; infinite if it has no latency on the target.

        Raises:
            EstimateError: the table does not know the block.
        """
        return max(0.0, float(self._costs(block_properties(self.table, [block]))[0]))

    def _costs(self, properties: Floats) -> Floats:
        """Costs of blocks or networks by their properties; infinite where the latency is."""
        runs = np.isfinite(properties[:, 0])
        weights = [self.scale, self.per_block_ns, self.boundary_ns_per_byte, self.weights_ns_per_byte]
        costs: Floats = np.full(len(properties), np.inf)
        costs[runs] = properties[runs] @ np.array(weights)
        return costs


def _kept(count: int, features: int, scored: Sequence[int], disturbed: Container[int]) -> list[int]:
    """The networks to fit on: those not disturbed where they are enough, with half of the scored ones."""
    kept = [index for index in range(count) if index not in disturbed]
    sound = [index for index in scored if index not in disturbed]
    enough = len(kept) >= max(MIN_NETWORKS, 2 * features) and len(sound) >= max(len(scored) / 2, 1)
    return kept if enough else list(range(count))


def _weight(measured_ns: float, interval_ns: tuple[float, float] | None) -> float:
    """Of a network in a fit: less than 1 where its interval is wider than that of any valid measurement."""
    if interval_ns is None:
        return 1.0
    low_ns, high_ns = interval_ns
    return float(min(1.0, SPREAD_DEGRADED * measured_ns / max(high_ns - low_ns, 1e-300)) ** 2)


def _score(predicted_ns: float, measured_ns: Sequence[float]) -> float:
    """Absolute log ratio of the farthest of several measured latencies to a predicted one."""
    if predicted_ns <= 0:
        return math.inf
    return max(abs(math.log(max(each, 1e-300) / predicted_ns)) for each in measured_ns)
