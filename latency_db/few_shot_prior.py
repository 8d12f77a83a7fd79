"""What known devices say about a new one: the mean and covariance of their smoothed latencies."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Prior:
    """Distribution of a device's weights on p whitened features.

    mean (p,); factors (p, k): the covariance that devices share is factors @ factors.T; own (p,): variance
    of what a device has of its own; noise (n_source,): standard deviations of measurements about the fits.
    """

    mean: Array
    factors: Array
    own: Array
    noise: Array
    devices: int


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


def smooth_devices(white: Array, source_ms: Array) -> tuple[Array, Array, Array]:
    """Log latencies (n_arch, n_source) less failed runs, weights (p, n_source) and noise (n_source,).

    Residuals beyond three robust standard deviations are clipped once: single bad runs do not bend a fit.
    """
    count = source_ms.shape[1]
    logs = np.full(source_ms.shape, np.nan)
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
        final = np.clip(target - design[ran] @ solution, -limit, limit)
        noise[source] = max(float(np.sqrt(np.mean(final**2))), _LEAST_NOISE)
    return logs, weights, noise


def learn_prior(weights: Array, noise: Array) -> Prior:
    """Mean, shared covariance and own variance of devices with these weights (p, n_source)."""
    size, count = weights.shape
    if count == 0:
        return Prior(np.zeros(size), np.zeros((size, 0)), np.zeros(size), noise, 0)
    mean = weights.mean(axis=1)
    if count == 1:
        return Prior(mean, 0.5 * mean[:, None], np.zeros(size), noise, 1)
    apart = np.zeros_like(weights)
    for device in range(count):
        others = np.delete(weights, device, axis=1)
        centre = others.mean(axis=1)
        basis, target = others - centre[:, None], weights[:, device] - centre
        gram = basis.T @ basis
        ridge = _SHRINKAGE * np.trace(gram) / count + 1e-12
        apart[:, device] = target - basis @ np.linalg.solve(
            gram + ridge * np.eye(count - 1), basis.T @ target
        )
    factors = (weights - mean[:, None]) / np.sqrt(count - 1)
    if count == 2:
        factors = np.hstack([factors, 0.5 * mean[:, None]])
    return Prior(mean, factors, np.mean(apart**2, axis=1), noise, count)
