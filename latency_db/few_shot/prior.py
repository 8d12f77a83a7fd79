"""What known devices say about a new one: the mean and covariance of their smoothed latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FAILED_BELOW = 0.2
"""Values below this share of a device's median are runs that failed: published tables keep them as data."""

_RANK_TOLERANCE = 1e-6
_SMOOTHING = 1e-4
_CLIP = 3.0
_SHRINKAGE = 0.02
_LEAST_NOISE = 1e-3
_DEVICES_PER_COMPONENT = 3
_LEAST_UNIQUENESS = 0.05
_FACTORING_ROUNDS = 50
_STRETCH = 0.3
_STRETCH_OF_FEW = 0.5


@dataclass(frozen=True)
class Devices:
    """Known devices, each smoothed on its own.

    logs (n_arch, n_source): log latencies, NaN where missing or failed; weights (p, n_source) on the whitened
    features; residuals (n_arch, n_source) about the fit, clipped, 0 where missing; noise (n_source,): their
    standard deviations; groups (n_source,): the machine of each.
    """

    logs: Array
    weights: Array
    residuals: Array
    noise: Array
    groups: NDArray[np.object_]

    def without(self, group: str) -> Devices:
        """The devices of all other groups."""
        kept = self.groups != group
        return Devices(
            self.logs[:, kept],
            self.weights[:, kept],
            self.residuals[:, kept],
            self.noise[kept],
            self.groups[kept],
        )


@dataclass(frozen=True)
class Prior:
    """Distribution of a new device's p weights on the whitened features and the shared components.

    components (n_arch, k): what known devices share beyond the features; mean (p,); factors (p, n): the
    covariance that devices share is factors @ factors.T; own (p,): variance of what a device has of its own;
    features (p,): variance of behaviour that no known device shows; devices: how many taught it.
    """

    components: Array
    mean: Array
    factors: Array
    own: Array
    features: Array
    devices: int

    def spread(self, design: Array) -> Array:
        """Variance (n,) among known devices at these rows (n, p) of features and components."""
        return np.asarray(((design @ self.factors) ** 2).sum(axis=1) + design**2 @ self.own)


def whiten(features: Array) -> tuple[Array, Array]:
    """Uncorrelated features (n_arch, p) of unit variance, and each one's share (p,) of all variance."""
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    varied = spread > 1e-12 * np.maximum(np.abs(features).max(axis=0), 1e-300)
    if not varied.any():
        return np.zeros((len(features), 1)), np.zeros(1)
    scaled = centred[:, varied] / spread[varied]
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    kept = values > values[-1] * _RANK_TOLERANCE
    return (scaled @ vectors[:, kept]) / np.sqrt(values[kept]), values[kept] / values[kept].sum()


def smooth_devices(white: Array, source_ms: Array, groups: Sequence[str]) -> Devices:
    """A ridge regression of each device's log latency on the whitened features, less failed runs.

    Residuals beyond three robust standard deviations are clipped once: single bad runs do not bend a fit.
    """
    count = source_ms.shape[1]
    logs, residuals = np.full(source_ms.shape, np.nan), np.zeros(source_ms.shape)
    weights, noise = np.zeros((white.shape[1], count)), np.zeros(count)
    design = np.hstack([np.ones((len(white), 1)), white])
    whole = design.T @ design
    penalty = np.full(design.shape[1], _SMOOTHING * len(white))
    penalty[0] = 0.0
    for source in range(count):
        times = source_ms[:, source]
        ran = times >= FAILED_BELOW * np.nanmedian(times)
        logs[ran, source] = np.log(times[ran])
        gram = whole - design[~ran].T @ design[~ran] + np.diag(penalty)
        target = logs[ran, source]
        fitted = design[ran] @ np.linalg.solve(gram, design[ran].T @ target)
        residual = target - fitted
        limit = _CLIP * 1.4826 * np.median(np.abs(residual)) + 1e-12
        clipped = fitted + np.clip(residual, -limit, limit)
        solution = np.linalg.solve(gram, design[ran].T @ clipped)
        weights[:, source] = solution[1:]
        limit *= 4 / 3
        residuals[ran, source] = np.clip(target - design[ran] @ solution, -limit, limit)
        noise[source] = max(float(np.sqrt(np.mean(residuals[ran, source] ** 2))), _LEAST_NOISE)
    return Devices(logs, weights, residuals, noise, np.array(groups, dtype=object))


def learn_prior(devices: Devices, feature_variance: Array) -> Prior:
    """The prior that these devices teach; groups count alike, whatever the number of their settings.

    A new device may stretch the mean more than known ones differ: constant costs squeeze its logs, and a
    small cache pulls them apart.
    """
    components, loadings = shared_components(devices.residuals, devices.noise)
    weights = np.vstack([devices.weights, loadings])
    size, count = weights.shape
    features = np.concatenate([feature_variance, np.zeros(len(loadings))])
    if count == 0:
        return Prior(components, np.zeros(size), np.zeros((size, 0)), np.zeros(size), features, 0)
    _, group, settings = np.unique(devices.groups, return_inverse=True, return_counts=True)
    share = 1 / (len(settings) * settings[group])
    mean = weights @ share
    factors = (weights - mean[:, None]) * np.sqrt(share * len(settings) / max(len(settings) - 1, 1))
    stretch = _STRETCH_OF_FEW if len(settings) <= 2 else _STRETCH
    factors = np.hstack([factors, stretch * mean[:, None]])
    apart = np.zeros_like(weights)
    if count > 1:
        for device in range(count):
            others = group != group[device] if len(settings) > 1 else np.arange(count) != device
            apart[:, device] = _remainder(weights[:, device], weights[:, others], share[others])
    return Prior(components, mean, factors, apart**2 @ share, features, count)


def _remainder(device: Array, others: Array, share: Array) -> Array:
    """What a ridge regression on the other devices leaves of a device's weights (p,)."""
    centre = others @ (share / share.sum())
    basis, target = others - centre[:, None], device - centre
    gram = basis.T @ basis
    ridge = _SHRINKAGE * np.trace(gram) / len(gram) + 1e-12
    return np.asarray(target - basis @ np.linalg.solve(gram + ridge * np.eye(len(gram)), basis.T @ target))


def shared_components(residuals: Array, noise: Array) -> tuple[Array, Array]:
    """Scores (n_arch, k) of unit variance and loadings (k, n_source) of what the residuals share.

    Principal axis factoring of the residuals' correlation. A component counts if its eigenvalue is beyond the
    edge of those of independent columns (Marchenko and Pastur 1967), and if there are three devices to each.
    Scores are clipped, so that no single architecture has the leverage of many.
    """
    rows, count = residuals.shape
    none = np.zeros((rows, 0)), np.zeros((0, count))
    if count < _DEVICES_PER_COMPONENT:
        return none
    scaled = residuals / noise
    correlation = scaled.T @ scaled / rows
    np.fill_diagonal(correlation, 1.0)
    beyond = int((np.linalg.eigvalsh(correlation) > (1 + math.sqrt(count / rows)) ** 2).sum())
    size = min(beyond, count // _DEVICES_PER_COMPONENT)
    if not size:
        return none
    uniqueness = np.ones(count)
    for _ in range(_FACTORING_ROUNDS):
        values, vectors = np.linalg.eigh(correlation - np.diag(uniqueness))
        loadings = vectors[:, -size:] * np.sqrt(np.maximum(values[-size:], 0.0))
        uniqueness = np.clip(1 - (loadings**2).sum(axis=1), _LEAST_UNIQUENESS, 1.0)
    scores = scaled @ np.linalg.solve(loadings @ loadings.T + np.diag(uniqueness), loadings)
    spread = scores.std(axis=0)
    scores = np.clip(scores, -_CLIP * spread, _CLIP * spread)
    spread = scores.std(axis=0)
    kept = spread > 1e-6
    return scores[:, kept] / spread[kept], (loadings[:, kept] * spread[kept]).T * noise
