"""Bayesian regression of a device's weights on few samples, averaged over scales of noise and prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latency_db.few_shot.prior import Array, Prior

_STUDENT_DEGREES = 4.0
_OFFSET_VARIANCE = 100.0
_ROUNDS = 4
_WEIGHING_SAMPLES = 100
_LEAST_SHARE = 1e-3
_NOISE = np.geomspace(0.003, 0.3, 7)
_FACTOR_SCALES = (0.25, 1.0, 4.0)
_OWN_SCALES = (0.01, 0.1, 1.0)
_FEATURE_SCALES = (0.01, 0.03, 0.1, 0.3)
_FEATURE_SCALES_ALONE = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Scales(NamedTuple):
    """Points of the grid: the noise's standard deviation and factors of the prior's variances, each (g,)."""

    noise: Array
    factor: Array
    own: Array
    feature: Array

    @classmethod
    def for_devices(cls, devices: int) -> Scales:
        """The grid for a prior that so many devices taught."""
        axes = (
            _NOISE,
            _FACTOR_SCALES if devices else (1.0,),
            _OWN_SCALES if devices > 1 else (1.0,),
            np.square(_FEATURE_SCALES if devices else _FEATURE_SCALES_ALONE),
        )
        return cls(*(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")))

    def at(self, points: NDArray[np.intp] | np.intp) -> Scales:
        """These points of the grid."""
        return Scales(*(axis[points] for axis in self))


@dataclass(frozen=True)
class Samples:
    """Measured architectures: design (n, 1 + p), offset first; logs (n,); rounding (n,): its variance."""

    design: Array
    logs: Array
    rounding: Array
    step: float

    def thinned(self, count: int) -> Samples:
        """At most this many of them, evenly spread."""
        kept = np.unique(np.linspace(0, len(self.logs) - 1, min(count, len(self.logs))).round().astype(int))
        return Samples(self.design[kept], self.logs[kept], self.rounding[kept], self.step)


@dataclass(frozen=True)
class Posterior:
    """Weights (1 + p,), offset first, their covariance, the noise variance and the step of rounding.

    left_out (n,): error of each sample's log if it is predicted from the others, at the scales that all of
    them have chosen.
    """

    weights: Array
    covariance: Array
    noise: float
    step: float
    left_out: Array

    def variances(self, design: Array, centre: Array) -> tuple[Array, Array]:
        """Variances (n,) of new logs, without and by rounding; centre (n,): logs in the samples' unit."""
        variance = np.einsum("ij,ij->i", design @ self.covariance, design)
        return np.maximum(variance, 0) + self.noise, self.step**2 / 12 * np.exp(-2 * centre)


def weigh(samples: Samples, prior: Prior, scales: Scales) -> Array:
    """Log evidence (g,) of every point of the grid."""
    return _Fit(samples.thinned(_WEIGHING_SAMPLES), prior, scales).evidence


def regress(samples: Samples, prior: Prior, scales: Scales, vote: Array) -> Posterior:
    """Posterior of the weights, averaged over the grid by evidence and vote (g,), its log prior."""
    likely = np.flatnonzero(_shares(weigh(samples, prior, scales) + vote))
    scales, vote = scales.at(likely), vote[likely]
    fit = _Fit(samples, prior, scales)
    share = _shares(fit.evidence + vote)
    size = samples.design.shape[1]
    weights, covariance = np.zeros((len(share), size)), np.zeros((size, size))
    inverse = np.linalg.inv(fit.total)
    for point in np.flatnonzero(share):
        before = prior_covariance(prior, scales.at(point), _OFFSET_VARIANCE)
        carried = before @ samples.design.T
        weights[point] = carried @ fit.dual[point]
        covariance += share[point] * (before - carried @ inverse[point] @ carried.T)
    mean = share @ weights
    apart = weights - mean
    covariance += (share[:, None] * apart).T @ apart
    mean[0] += np.median(samples.logs)
    mean[1:] += prior.mean
    noise = float(share @ scales.noise**2) * _STUDENT_DEGREES / (_STUDENT_DEGREES - 2)
    left_out = share @ (fit.dual / np.einsum("gii->gi", inverse))
    return Posterior(mean, covariance, noise, samples.step, left_out)


def prior_covariance(prior: Prior, scales: Scales, offset_variance: float) -> Array:
    """Covariance (1 + p, 1 + p) of the weights, offset first, at one point of the grid."""
    size = len(prior.mean) + 1
    covariance = np.zeros((size, size))
    covariance[0, 0] = offset_variance
    covariance[1:, 1:] = scales.factor * (prior.factors @ prior.factors.T)
    covariance[1:, 1:][np.diag_indices(size - 1)] += scales.own * prior.own + scales.feature * prior.features
    return covariance


class _Fit:
    """Student regression at every point of the grid, as iteratively reweighted Gaussian ones.

    total (g, n, n): covariance of the logs; dual (g, n): total^-1 of what the prior's mean leaves; evidence
    (g,): its Laplace approximation.
    """

    def __init__(self, samples: Samples, prior: Prior, scales: Scales) -> None:
        features = samples.design[:, 1:]
        shared = features @ prior.factors
        kernel = _OFFSET_VARIANCE + (
            scales.factor[:, None, None] * (shared @ shared.T)
            + scales.own[:, None, None] * ((features * prior.own) @ features.T)
            + scales.feature[:, None, None] * ((features * prior.features) @ features.T)
        )
        target = samples.logs - np.median(samples.logs) - features @ prior.mean
        errors = scales.noise[:, None] ** 2 + samples.rounding
        trust = np.ones_like(errors)
        diagonal = np.arange(len(target))
        for last in range(_ROUNDS):
            self.total = kernel.copy()
            self.total[:, diagonal, diagonal] += errors / trust
            right = np.broadcast_to(target[:, None], (*errors.shape, 1))
            self.dual = np.linalg.solve(self.total, right)[..., 0]
            residual = errors / trust * self.dual
            if last < _ROUNDS - 1:
                trust = (_STUDENT_DEGREES + 1) / (_STUDENT_DEGREES + residual**2 / errors)
        # The likelihood of the residuals, the prior of the fitted values, and the curvature at the mode.
        likelihood = -0.5 * (_STUDENT_DEGREES + 1) * np.log1p(residual**2 / (_STUDENT_DEGREES * errors))
        fitted = np.einsum("gi,gi->g", self.dual, target - residual)
        curvature = np.linalg.slogdet(self.total)[1] - np.log(errors / trust).sum(axis=1)
        self.evidence: Array = (likelihood - 0.5 * np.log(errors)).sum(axis=1) - 0.5 * (fitted + curvature)


def resolution_of(values: Array) -> float:
    """The step that all values are multiples of, or 0: clocks of whole milliseconds round like this."""
    distinct = np.unique(values)
    if len(distinct) < 4:
        return 0.0
    step = float(np.diff(distinct).min())
    if step < 1e-3 * distinct[-1]:
        return 0.0
    multiples = values / step
    return step if np.abs(multiples - np.round(multiples)).max() < 1e-6 * multiples.max() else 0.0


def _shares(evidence: Array) -> Array:
    """Shares (g,) of the points, the least of them 0."""
    share = np.exp(evidence - evidence.max())
    share[share < _LEAST_SHARE] = 0.0
    return np.asarray(share / share.sum())
