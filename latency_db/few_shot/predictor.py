"""Latency on a new device from a few measurements, with intervals, from devices that are known already.

A device is a vector of weights on whitened features of the architectures, in log latency, and on components
that known devices share beyond the features. The known devices give the prior of these weights
(`few_shot_prior`); the samples turn it into a posterior by Bayesian linear regression with Student errors,
averaged over a grid of noise and prior scales (`few_shot_regression`). The same posterior says which
architectures are worth measuring. Known devices, each predicted from the others, say how likely each scale is
and how wide an interval must be (`few_shot_replays`); nothing is fitted to the new device but its samples.

The unit of the samples does not matter, as long as they share one; estimates come back in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from latency_db.errors import EstimateError
from latency_db.few_shot.design import Indices, most_informative
from latency_db.few_shot.explanation import Explanation
from latency_db.few_shot.prior import FAILED_BELOW, Array, smooth_devices, whiten
from latency_db.few_shot.replays import Replays

MIN_SAMPLES_ALONE = 5
"""Fewest samples that are predicted from where no other devices are known."""


class DeviceBasis:
    """Known devices, smoothed once, from which any number of new devices are predicted.

    features: (n_arch, n_feature). source_ms: (n_arch, n_source), NaN where nothing was measured; n_source may
    be 0. source_groups: one name per source; settings of one machine (batch sizes, threads) share a name, so
    that no setting is predicted from its siblings in the calibration. By default each source is a group.

    Raises EstimateError for wrong shapes, values that are not finite or not positive, and empty sources.
    """

    def __init__(
        self, features: ArrayLike, source_ms: ArrayLike, source_groups: Sequence[str] | None = None
    ) -> None:
        table, sources = _check_sources(features, source_ms)
        count = sources.shape[1]
        groups = [str(number) for number in range(count)] if source_groups is None else list(source_groups)
        if len(groups) != count:
            raise EstimateError(
                f"{len(groups)} source groups for {count} sources",
                why="every source device belongs to one group",
                fix="give one group name per column of source_ms",
            )
        white, variance = whiten(table)
        self._replays = Replays(white, variance, smooth_devices(white, sources, groups))
        self._model = self._replays.model()
        self._design = self._model.design()

    def predict(
        self, sample_index: ArrayLike, sample_ms: ArrayLike, coverage: float = 0.9
    ) -> tuple[Array, Array, Array]:
        """Estimate, lower and upper bound for every architecture, each (n_arch,), in the unit of the samples.

        Samples below a fifth of their median are taken as failed runs and left out. Raises EstimateError for
        samples that are duplicate, missing, not positive, out of range or too few.
        """
        if not 0.0 < coverage < 1.0:
            raise EstimateError(
                f"a coverage of {coverage}",
                why="it is the share of true values inside the interval",
                fix="give a value between 0 and 1, such as 0.9",
            )
        index, values = self._check_samples(sample_index, sample_ms)
        posterior = self._model.fit(index, values)
        centre = self._design @ posterior.weights
        factor = self._replays.deviations(self._model, index, values, coverage)
        # The calibration cannot know the new device's rounding: what it scales down, rounding would undercut.
        rounding_factor = max(factor, NormalDist().inv_cdf((1 + coverage) / 2))
        variance, rounding = posterior.variances(self._design, centre)
        half = np.sqrt(factor**2 * variance + rounding_factor**2 * rounding)
        return np.exp(centre), np.exp(centre - half), np.exp(centre + half)

    def explain(self, sample_index: ArrayLike, sample_ms: ArrayLike, power: float = 1.0) -> Explanation:
        """How well the known devices explain these samples, which are latencies to the power of ``power``.

        Raises EstimateError as ``predict``.
        """
        index, values = self._check_samples(sample_index, sample_ms)
        left_out = self._model.fit(index, values).left_out
        return Explanation.of_logs(left_out, self._replays.left_out_errors(self._model, index), power)

    def choose(self, count: int) -> Indices:
        """The architectures (count,) to measure first, most informative first."""
        _check_count(count, len(self._design))
        return self._model.choose(count)

    def choose_next(self, sample_index: ArrayLike, sample_ms: ArrayLike, count: int = 1) -> Indices:
        """The architectures (count,) to measure after these samples, which it never names again.

        A sample_ms of NaN marks a run that failed.
        """
        index = np.asarray(sample_index)
        values = np.asarray(sample_ms, dtype=float)
        usable = np.isfinite(values) if values.shape == index.shape else np.ones(index.shape, dtype=bool)
        if usable.sum() < self._needed:
            tried = self._check_index(index)
            order = self.choose(min(count + len(tried), len(self._design)))
            remaining = order[~np.isin(order, tried)]
            _check_count(count, len(self._design) - len(tried))
            return remaining[:count]
        self._check_index(index)
        kept, times = self._check_samples(index[usable], values[usable])
        posterior = self._model.fit(kept, times)
        _check_count(count, len(self._design) - len(index))
        misfit = self._model.misfit(self._design, posterior.noise)
        return most_informative(self._design, posterior.covariance, misfit, count, index)

    @property
    def _needed(self) -> int:
        return 1 if self._model.prior.devices else MIN_SAMPLES_ALONE

    def _check_index(self, sample_index: ArrayLike) -> Indices:
        index = np.asarray(sample_index)
        if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
            raise EstimateError(
                f"sample_index has shape {index.shape} and type {index.dtype}",
                why="it names rows of features",
                fix="give a one-dimensional array of integers",
            )
        if index.size and (index.min() < 0 or index.max() >= len(self._design)):
            raise EstimateError(
                f"sample_index names rows from {index.min()} to {index.max()}",
                why=f"features has rows 0 to {len(self._design) - 1}",
                fix="give positions in features",
            )
        if len(np.unique(index)) < len(index):
            raise EstimateError(
                "an architecture is sampled twice",
                why="repeated measurements of one architecture are not independent evidence",
                fix="give their median once",
            )
        return index.astype(np.int64)

    def _check_samples(self, sample_index: ArrayLike, sample_ms: ArrayLike) -> tuple[Indices, Array]:
        index, values = self._check_index(sample_index), np.asarray(sample_ms, dtype=float)
        if values.shape != index.shape:
            raise EstimateError(
                f"{values.shape} latencies for {index.shape} samples",
                why="every sample has one latency",
                fix="give sample_index and sample_ms of one length",
            )
        if not (np.isfinite(values) & (values > 0)).all():
            raise EstimateError(
                "a sample is missing, not finite or not positive",
                why="latencies are fitted on a logarithmic scale",
                fix="leave out the runs that failed",
            )
        if len(values):
            ran = values >= FAILED_BELOW * np.median(values)
            order = np.argsort(index[ran])
            index, values = index[ran][order], values[ran][order]
        if len(index) < self._needed:
            raise EstimateError(
                f"{len(index)} usable samples",
                why=f"{self._model.prior.devices} source devices need at least {self._needed}",
                fix="measure more architectures, or give source devices",
            )
        return index, values


def predict(
    features: ArrayLike,
    source_ms: ArrayLike,
    sample_index: ArrayLike,
    sample_ms: ArrayLike,
    coverage: float = 0.9,
    *,
    source_groups: Sequence[str] | None = None,
) -> tuple[Array, Array, Array]:
    """Estimate, lower and upper bound of every architecture on a new device; see DeviceBasis."""
    return DeviceBasis(features, source_ms, source_groups).predict(sample_index, sample_ms, coverage)


def choose(features: ArrayLike, source_ms: ArrayLike, count: int) -> Indices:
    """Which architectures (count,) to measure first on a new device; see DeviceBasis."""
    return DeviceBasis(features, source_ms).choose(count)


def choose_next(
    features: ArrayLike, source_ms: ArrayLike, sample_index: ArrayLike, sample_ms: ArrayLike, count: int = 1
) -> Indices:
    """Which architectures (count,) to measure after these samples (NaN: failed); see DeviceBasis."""
    return DeviceBasis(features, source_ms).choose_next(sample_index, sample_ms, count)


def _check_count(count: int, available: int) -> None:
    if not 1 <= count <= available:
        raise EstimateError(
            f"{count} architectures were asked for",
            why=f"{available} are left to choose from",
            fix=f"ask for 1 to {available}",
        )


def _check_sources(features: ArrayLike, source_ms: ArrayLike) -> tuple[Array, Array]:
    table, sources = np.asarray(features, dtype=float), np.asarray(source_ms, dtype=float)
    if table.ndim != 2 or sources.ndim != 2 or len(table) != len(sources) or not table.size:
        raise EstimateError(
            f"features of shape {table.shape} with source_ms of shape {sources.shape}",
            why="both have one row per architecture",
            fix="give (n_arch, n_feature) and (n_arch, n_source); n_source may be 0",
        )
    if not np.isfinite(table).all():
        raise EstimateError(
            "features hold values that are not finite",
            why="every architecture is described by all features",
            fix="fill or drop the features that are missing",
        )
    measured = ~np.isnan(sources)
    if np.isinf(sources).any() or (sources[measured] <= 0).any():
        raise EstimateError(
            "source_ms holds values that are infinite or not positive",
            why="latencies are fitted on a logarithmic scale",
            fix="put NaN where a run failed or nothing was measured",
        )
    if (measured.sum(axis=0) < 2).any():
        empty = np.flatnonzero(measured.sum(axis=0) < 2).tolist()
        raise EstimateError(
            f"source devices {empty} have fewer than 2 measurements",
            why="nothing can be learned from them",
            fix="leave these columns out",
        )
    return table, sources
