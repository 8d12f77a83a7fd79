"""Latency on a new device from a few measurements, with intervals, from devices that are known already.

A device is a vector of weights on whitened features of the architectures, in log latency. The known devices
give the prior of these weights (`few_shot_prior`); the samples turn it into a posterior by Bayesian linear
regression with Student errors, averaged over a fixed grid of noise and prior scales by their evidence
(`few_shot_regression`). The same posterior says which architectures are worth measuring and how wide an
interval is. Known devices, each predicted from the others, calibrate the intervals.

The unit of the samples does not matter, as long as they share one; estimates come back in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency_db.errors import EstimateError
from latency_db.few_shot_prior import FAILED_BELOW, Array, Prior, learn_prior, smooth_devices, whiten
from latency_db.few_shot_regression import (
    FEATURE_SCALES,
    FEATURE_SCALES_ALONE,
    NOISE,
    OWN_SCALES,
    STUDENT_DEGREES,
    Posterior,
    regress,
    resolution_of,
)

Indices = NDArray[np.int64]

MIN_SAMPLES_ALONE = 5
MIN_GROUPS_TO_CALIBRATE = 3

_DESIGN_OFFSET_VARIANCE = 4.0
_CALIBRATION_SAMPLES = 40
_CALIBRATION_CHECKS = 400
_CALIBRATION_DRAWS = 2


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
        self._groups = np.array(groups, dtype=object)
        white, self._feature_variance = whiten(table)
        self._design = np.hstack([np.ones((len(white), 1)), white])
        self._logs, self._weights, self._noise = smooth_devices(white, sources)
        self._prior = learn_prior(self._weights, self._noise)
        self._replays: dict[int, tuple[Array, Array]] = {}

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
        posterior, shift = self._regress(index, values, self._prior)
        centre = self._design @ posterior.weights + shift
        factor = self._quantile(len(index), coverage, posterior)
        # The calibration cannot know the new device's rounding: what it scales down, rounding would undercut.
        rounding_factor = max(factor, NormalDist().inv_cdf((1 + coverage) / 2))
        variance, rounding = posterior.variances(self._design, centre)
        half = np.sqrt(factor**2 * variance + rounding_factor**2 * rounding)
        return np.exp(centre), np.exp(centre - half), np.exp(centre + half)

    def choose(self, count: int) -> Indices:
        """The architectures (count,) to measure first, most informative first."""
        prior = self._prior
        feature_scale = FEATURE_SCALES[1] if self._weights.shape[1] else FEATURE_SCALES_ALONE[1]
        own = OWN_SCALES[-1] * prior.own + feature_scale**2 * self._feature_variance
        covariance = np.zeros((self._design.shape[1],) * 2)
        covariance[0, 0] = _DESIGN_OFFSET_VARIANCE
        covariance[1:, 1:] = prior.factors @ prior.factors.T + np.diag(own)
        noise = float(np.median(self._noise)) ** 2 if len(self._noise) else float(np.median(NOISE)) ** 2
        return self._greedy(covariance, noise, count, np.empty(0, dtype=np.int64))

    def choose_next(self, sample_index: ArrayLike, sample_ms: ArrayLike, count: int = 1) -> Indices:
        """The architectures (count,) to measure after these samples, which it never names again.

        A sample_ms of NaN marks a run that failed.
        """
        index = np.asarray(sample_index)
        values = np.asarray(sample_ms, dtype=float)
        usable = np.isfinite(values) if values.shape == index.shape else np.ones(index.shape, dtype=bool)
        if not usable.any() or (not self._weights.shape[1] and usable.sum() < MIN_SAMPLES_ALONE):
            tried = self._check_index(index)
            order = self.choose(min(count + len(tried), len(self._design)))
            remaining = order[~np.isin(order, tried)]
            _check_count(count, len(self._design) - len(tried))
            return remaining[:count]
        self._check_index(index)
        kept, times = self._check_samples(index[usable], values[usable])
        posterior, _ = self._regress(kept, times, self._prior)
        return self._greedy(posterior.covariance, posterior.noise, count, index.astype(np.int64))

    def _greedy(self, covariance: Array, noise: float, count: int, excluded: Indices) -> Indices:
        """Greedy A-optimal design: each choice lowers the mean variance over all architectures the most.

        The features are white, so the mean variance is the trace of the weights' covariance.
        """
        _check_count(count, len(self._design) - len(excluded))
        products = self._design @ covariance
        variance = np.einsum("ij,ij->i", products, self._design) + noise
        gain = np.einsum("ij,ij->i", products, products)
        barred = np.zeros(len(variance), dtype=bool)
        barred[excluded] = True
        chosen = np.empty(count, dtype=np.int64)
        for step in range(count):
            best = int(np.where(barred, -1.0, gain / variance).argmax())
            chosen[step] = best
            barred[best] = True
            direction = products[best].copy()
            along = self._design @ direction
            products -= np.outer(along, direction / variance[best])
            gain = np.einsum("ij,ij->i", products, products)
            variance = np.maximum(variance - along**2 / variance[best], noise)
        return chosen

    def _regress(self, index: Indices, values: Array, prior: Prior) -> tuple[Posterior, float]:
        logs = np.log(values)
        shift = float(np.median(logs))
        step = resolution_of(values)
        posterior = regress(
            self._design[index],
            logs - shift,
            prior,
            self._feature_variance,
            rounding=step**2 / 12 / values**2,
            resolution=step,
        )
        return posterior, shift

    def _quantile(self, count: int, coverage: float, posterior: Posterior) -> float:
        """How many standard deviations the interval reaches to either side.

        Each source is predicted from the other groups and as many random samples; groups count alike.
        With too few groups, the samples themselves are left out one at a time.
        """
        groups = sorted(set(self._groups))
        if len(groups) < MIN_GROUPS_TO_CALIBRATE:
            rank = math.ceil((len(posterior.left_out) + 1) * coverage)
            if rank <= len(posterior.left_out):
                return float(np.sort(posterior.left_out)[rank - 1])
            deviation = math.sqrt(STUDENT_DEGREES / (STUDENT_DEGREES - 2))
            return deviation * NormalDist().inv_cdf((1 + coverage) / 2)
        count = min(count, _CALIBRATION_SAMPLES)
        if count not in self._replays:
            random = np.random.default_rng(0)
            errors, shares = [], []
            for group in groups:
                others = self._groups != group
                prior = learn_prior(self._weights[:, others], self._noise[others])
                sources = np.repeat(np.flatnonzero(~others), _CALIBRATION_DRAWS)
                found = np.concatenate([self._replay(prior, int(each), count, random) for each in sources])
                errors.append(found)
                shares.append(np.full(len(found), 1 / max(len(found), 1)))
            error, share = np.concatenate(errors), np.concatenate(shares)
            order = np.argsort(error)
            self._replays[count] = error[order], np.cumsum(share[order]) / share.sum()
        error, reached = self._replays[count]
        return float(error[min(int(np.searchsorted(reached, coverage)), len(error) - 1)])

    def _replay(self, prior: Prior, source: int, count: int, random: np.random.Generator) -> Array:
        """Errors in standard deviations when a source is predicted as if it were new."""
        logs = self._logs[:, source]
        known = random.permutation(np.flatnonzero(np.isfinite(logs)))
        index, rest = known[:count], known[count : count + _CALIBRATION_CHECKS]
        posterior, shift = self._regress(index, np.exp(logs[index]), prior)
        centre = self._design[rest] @ posterior.weights + shift
        variance, rounding = posterior.variances(self._design[rest], centre)
        return np.asarray(np.abs(logs[rest] - centre) / np.sqrt(variance + rounding))

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
            index, values = index[ran], values[ran]
        needed = 1 if self._weights.shape[1] else MIN_SAMPLES_ALONE
        if len(index) < needed:
            raise EstimateError(
                f"{len(index)} usable samples",
                why=f"{self._weights.shape[1]} source devices need at least {needed}",
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
