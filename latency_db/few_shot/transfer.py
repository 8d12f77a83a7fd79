"""All blocks and networks of a space on a new target, from few measurements and other targets' tables.

A latency is looked at relative to the sources': the logarithm of that ratio differs little from block to
block, and follows the blocks' sizes and kinds. A network's is nearly the mean of its blocks', weighted by
their shares of its latency. So blocks and networks are rows of one regression (``few_shot.DeviceBasis``), and
each measurement says something of both. What a block costs inside a network is then fitted on the measured
networks, as in ``network_model``: from its estimate, the share of it that sources pay inside networks, and a
constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.words import count_of
from latency_db.errors import EstimateError
from latency_db.few_shot.explanation import Explanation
from latency_db.few_shot.predictor import DeviceBasis
from latency_db.models.features import Floats
from latency_db.models.fitting import fit_relative, jackknife_factor
from latency_db.models.network_model import NetworkModel

Indices = NDArray[np.int64]

# The basis takes what is below a fifth of the median for failed runs. Ratios of unlike targets spread
# further; their square roots do not.
_POWER = 0.5

_LEAST_NS = 1e-3
_LEAST_SHARE = 0.01
"""Of its latency alone, that a block costs inside a network at least."""


@dataclass(frozen=True)
class Fit:
    """What samples give: latencies of all blocks alone with intervals, and their costs inside networks.

    ``fixed_ns`` is the cost of a network without blocks. A block that is a sample has its own latency.
    """

    low_ns: Floats
    blocks_ns: Floats
    high_ns: Floats
    costs_ns: Floats
    fixed_ns: float


class Transfer:
    """What the sources know of a space: rows are its blocks, then networks of it.

    Args:
        sources: tables with their network models.
        blocks: identities; each ran on a source at least.
        features: of the blocks, shape (n_blocks, n_features).
        networks: identities of each network's blocks.

    Raises:
        EstimateError: no two blocks ran on all sources.
        ValueError: there are no sources.
    """

    def __init__(
        self,
        sources: Sequence[NetworkModel],
        blocks: Sequence[str],
        features: Floats,
        networks: Sequence[Sequence[str]],
    ) -> None:
        if not sources:
            raise ValueError("nothing is known without sources")
        alone = _by_source(blocks, [source.table.latency_ns for source in sources])
        inside = _by_source(blocks, [source.block_cost_ns for source in sources])
        logs = np.log(alone)
        common = np.isfinite(logs).all(axis=1)
        if common.sum() < 2:
            raise EstimateError(
                f"{count_of(int(common.sum()), 'block')} ran on all of "
                + ", ".join(str(source.table.target) for source in sources),
                why="sources are compared by the blocks that ran on all of them",
                fix="leave out the source on which most blocks fail",
            )
        scale = logs[common].mean(axis=0)
        reference = np.nanmean(logs - scale, axis=1)
        self._blocks = len(blocks)
        self._shares = np.maximum(np.nanmean(inside / alone, axis=1), _LEAST_SHARE)
        self._counts = _counts(blocks, networks)

        parts = self._counts * np.exp(reference) * self._shares
        sums = parts.sum(axis=1)
        described = np.column_stack([features, reference])
        averages = (parts / sums[:, None]) @ described
        is_network = np.repeat([0.0, 1.0], [len(blocks), len(networks)])
        self._reference = np.concatenate([np.exp(reference), sums])
        # One source, relative to itself, says nothing.
        ratios = np.empty((len(self._reference), 0))
        if len(sources) > 1:
            whole = [[each.value_ns for each in source.estimate(networks)] for source in sources]
            known = np.vstack([alone, np.transpose(whole).reshape(-1, len(sources))]) / np.exp(scale)
            ratios = np.where(np.isfinite(known), known / self._reference[:, None], np.nan)
        self._basis = DeviceBasis(
            np.column_stack([np.vstack([described, averages]), is_network]),
            ratios**_POWER,
            [source.table.target.device for source in sources] if len(sources) > 1 else [],
        )

    def choose(self, index: Indices, measured_ns: Floats, count: int) -> Indices:
        """The rows (count,) to measure after these; NaN stands for one that could not run."""
        return self._basis.choose_next(index, self._relative(index, measured_ns), count)

    def fit(self, index: Indices, measured_ns: Floats, coverage: float) -> Fit:
        """Estimates from measured rows, which must include networks.

        Raises:
            EstimateError: there are too few rows.
        """
        of_rows = self._basis.predict(index, self._relative(index, measured_ns), coverage)
        blocks = np.stack([(each ** (1 / _POWER) * self._reference)[: self._blocks] for each in of_rows])
        is_network = index >= self._blocks
        blocks[:, index[~is_network]] = measured_ns[~is_network]
        blocks_ns, low_ns, high_ns = blocks
        # As of ``features.Terms``, each gives every block a cost of at least 0, and so does their sum.
        above_cheapest = blocks_ns - blocks_ns.min()
        terms = np.stack([blocks_ns * self._shares, above_cheapest, np.ones(self._blocks)], axis=1)
        sums = self._counts[index[is_network] - self._blocks] @ terms
        *weights, fixed_ns = fit_relative(
            np.column_stack([sums, np.ones(len(sums))]), measured_ns[is_network]
        ).tolist()
        return Fit(low_ns, blocks_ns, high_ns, terms @ np.array(weights), fixed_ns)

    def explain(self, index: Indices, measured_ns: Floats) -> Explanation:
        """How well the sources explain these rows.

        Raises:
            EstimateError: there are too few rows.
        """
        return self._basis.explain(index, self._relative(index, measured_ns), _POWER)

    def calibrate(
        self,
        index: Indices,
        measured_ns: Floats,
        drawn: Sequence[int],
        coverage: float,
        *,
        disturbed: Mapping[int, tuple[float, float]] | None = None,
    ) -> tuple[float, float]:
        """The factor on either side of a network's estimate, and the coverage that it has.

        It is that of a jackknife over the networks that were drawn: each is left out of every fit. Chosen
        ones say nothing of random networks.

        Args:
            index: measured rows.
            measured_ns: their latencies.
            drawn: rows of the networks that were drawn at random.
            coverage: that is wanted; what is reached is less where few were drawn.
            disturbed: low and high end of the rows whose measurement was disturbed: they count as off by the
                end that is farther from what is predicted.
        """
        errors = np.empty(len(drawn))
        for position, row in enumerate(drawn):
            kept = index != row
            fit = self.fit(index[kept], measured_ns[kept], coverage)
            predicted_ns = self._counts[row - self._blocks] @ fit.costs_ns + fit.fixed_ns
            ends_ns = (disturbed or {}).get(row, (measured_ns[~kept].item(),))
            errors[position] = max(abs(math.log(max(each, _LEAST_NS) / predicted_ns)) for each in ends_ns)
        return jackknife_factor(errors, coverage)

    def _relative(self, index: Indices, measured_ns: Floats) -> Floats:
        return np.asarray((measured_ns / self._reference[index]) ** _POWER)


def _by_source(blocks: Sequence[str], latencies: Sequence[Callable[[str], float]]) -> Floats:
    """Shape (n_blocks, n_sources); NaN where a block cannot run."""
    table = np.array([[latency_ns(block) for latency_ns in latencies] for block in blocks], np.float64)
    return np.where(np.isfinite(table), table, np.nan)


def _counts(blocks: Sequence[str], networks: Sequence[Sequence[str]]) -> Floats:
    """How often each network holds each block, shape (n_networks, n_blocks)."""
    positions = {block: position for position, block in enumerate(blocks)}
    counts = np.zeros((len(networks), len(blocks)))
    for row, network in zip(counts, networks, strict=True):
        np.add.at(row, [positions[block] for block in network], 1)
    return counts
