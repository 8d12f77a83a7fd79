"""Robust fits of relative errors with coefficients of at least 0, and how far they are off unseen data."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fit_relative(features: Floats, measured: Floats, weights: Floats | None = None) -> Floats:
    """Non-negative fit of relative errors, reweighted after Huber (1964) with k = 1.345 robust deviations.

    Args:
        features: shape (n, k).
        measured: shape (n,), above zero.
        weights: of the squared relative errors, shape (n,); alike if None.
    """
    from scipy.optimize import nnls

    relative = features / measured[:, None]
    # Columns of one length: nanoseconds stand beside bytes and counts.
    scales = np.maximum(np.linalg.norm(relative, axis=0), np.finfo(np.float64).tiny)
    given = np.ones_like(measured) if weights is None else weights
    robust = np.ones_like(measured)
    coefficients = np.zeros(features.shape[1])
    for _ in range(10):
        root = np.sqrt(given * robust)
        solution, _ = nnls(relative / scales * root[:, None], root, maxiter=100 * len(scales))
        coefficients = solution / scales
        residuals = np.abs(relative @ coefficients - 1.0)
        limit = 1.345 * 1.4826 * float(np.median(residuals))
        if limit <= 1e-12:
            break
        robust = np.minimum(1.0, limit / np.maximum(residuals, 1e-300))
    return coefficients


def left_out_predictions(
    features: Floats,
    measured: Floats,
    wanted: Sequence[int],
    batches: Sequence[Hashable],
    weights: Floats | None = None,
) -> Floats:
    """What fits without them predict of the ``wanted`` networks, shape (len(wanted),).

    A network is left out together with its batch, so that it is predicted as one of a batch to come is; and
    alone where fewer than half would remain, or too few for a fit.
    """
    given = np.ones_like(measured) if weights is None else weights

    @functools.cache
    def fit_on(kept: tuple[int, ...]) -> Floats:
        chosen = list(kept)
        return fit_relative(features[chosen], measured[chosen], given[chosen])

    fewest = max(len(measured) / 2, 2 * features.shape[1])
    predicted = np.empty(len(wanted))
    for position, network in enumerate(wanted):
        kept = tuple(each for each, batch in enumerate(batches) if batch != batches[network])
        if len(kept) < fewest:
            kept = tuple(each for each in range(len(measured)) if each != network)
        predicted[position] = float(features[network] @ fit_on(kept))
    return predicted


def jackknife_factor(scores: Floats, coverage: float) -> tuple[float, float]:
    """The factor on either side of a prediction, and the coverage that it claims.

    Args:
        scores: absolute log ratios of measured to predicted latencies, of predictions without the network.
        coverage: wanted. Of n scores the ceil((n + 1) * coverage)-th smallest is taken, as a network to come
            is equally likely to fall between any two of them; where n is too small, the largest, which
            claims n / (n + 1).
    """
    count = len(scores)
    rank = min(math.ceil((count + 1) * coverage), count)
    return math.exp(float(np.sort(scores)[rank - 1])), min(coverage, rank / (count + 1))
