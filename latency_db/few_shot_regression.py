"""Bayesian regression of a device's weights on few samples, averaged over noise and prior scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latency_db.few_shot_prior import Array, Prior

STUDENT_DEGREES = 4.0
_ROUNDS = 4
NOISE = np.geomspace(0.00375, 0.24, 7)
_NOISE_SPREAD = 0.5
_OFFSET_VARIANCE = 100.0
_FACTOR_SCALES = (0.5, 1.0, 3.0)
OWN_SCALES = (0.01, 0.1)
FEATURE_SCALES = (0.01, 0.03, 0.1, 0.3)
FEATURE_SCALES_ALONE = (0.1, 0.3, 0.6, 1.0)


@dataclass(frozen=True)
class Posterior:
    """Weights (offset first), their covariance, noise variance, and standardised leave-one-out errors."""

    weights: Array
    covariance: Array
    noise: float
    resolution: float
    left_out: Array

    def variances(self, design: Array, centre: Array) -> tuple[Array, Array]:
        """Variances (n,) of new logs, without and by rounding; centre (n,): logs in the samples' unit."""
        variance = np.einsum("ij,ij->i", design @ self.covariance, design)
        rounding = self.resolution**2 / 12 * np.exp(-2 * centre)
        return np.maximum(variance, 0) + self.noise, rounding


def regress(
    design: Array,
    logs: Array,
    prior: Prior,
    feature_variance: Array,
    *,
    rounding: Array,
    resolution: float,
) -> Posterior:
    """Posterior over the weights, averaged over the grid of scales.

    design (n, 1 + p), its first column ones; logs (n,); rounding (n,): error variance from rounding.
    """
    alone = prior.devices == 0
    noise, factor, own, feature = (
        part.ravel()
        for part in np.meshgrid(
            NOISE,
            (1.0,) if alone else _FACTOR_SCALES,
            (0.0,) if prior.devices < 2 else OWN_SCALES,
            np.square(FEATURE_SCALES_ALONE if alone else FEATURE_SCALES),
            indexing="ij",
        )
    )
    white = design[:, 1:]
    projected = white @ prior.factors
    kernel = (
        _OFFSET_VARIANCE
        + factor[:, None, None] * (projected @ projected.T)
        + own[:, None, None] * ((white * prior.own) @ white.T)
        + feature[:, None, None] * ((white * feature_variance) @ white.T)
    )
    errors = noise[:, None] ** 2 + rounding
    target = logs - white @ prior.mean
    trust = np.ones_like(errors)
    diagonal = np.arange(len(target))
    for _ in range(_ROUNDS):
        trust_used = trust
        total = kernel.copy()
        total[:, diagonal, diagonal] += errors / trust
        inverse = np.linalg.inv(total)
        dual = inverse @ target
        residual = errors / trust * dual
        trust = (STUDENT_DEGREES + 1) / (STUDENT_DEGREES + residual**2 / errors)
    evidence = -0.5 * (dual @ target + np.linalg.slogdet(total)[1])
    if len(prior.noise):
        distance = (np.log(noise)[:, None] - np.log(prior.noise)) / _NOISE_SPREAD
        evidence += np.log(np.mean(np.exp(-0.5 * distance**2), axis=1) + 1e-12)
    share = np.exp(evidence - evidence.max())
    share[share < 1e-3 * share.max()] = 0.0
    share /= share.sum()

    size = design.shape[1]
    weights = np.zeros((len(share), size))
    covariance = np.zeros((size, size))
    low_rank = prior.factors @ prior.factors.T
    left_out = np.zeros(len(target))
    for number in np.flatnonzero(share):
        before = np.zeros((size, size))
        before[0, 0] = _OFFSET_VARIANCE
        before[1:, 1:] = factor[number] * low_rank
        before[1:, 1:][np.diag_indices(size - 1)] += (
            own[number] * prior.own + feature[number] * feature_variance
        )
        carried = before @ design.T
        weights[number] = carried @ dual[number]
        covariance += share[number] * (before - carried @ inverse[number] @ carried.T)
        precision = np.diagonal(inverse[number])
        expected = 1 / precision + errors[number] * (1 - 1 / trust_used[number])
        left_out += share[number] * np.abs(dual[number]) / precision / np.sqrt(expected)
    mean = share @ weights
    apart = weights - mean
    covariance += (share[:, None] * apart).T @ apart
    mean[1:] += prior.mean
    return Posterior(mean, covariance, float(share @ noise**2), resolution, left_out)


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
