"""Robust fits of relative errors with coefficients of at least 0, and how far they are off unseen data."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def nonnegative_least_squares(features: Floats, goals: Floats) -> Floats:
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


def fit_relative(features: Floats, measured: Floats) -> Floats:
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


def left_out_scores(
    features: Floats, measured: Floats, scored: Sequence[int], batches: Sequence[Hashable]
) -> Floats:
    """Absolute log ratio of measured to predicted latency of the ``scored`` networks, by fits without them.

    A network is left out together with its batch, so that it is predicted as one of a batch to come is; and
    alone where fewer than half would remain, or too few for a fit.
    """

    @functools.cache
    def fit_on(kept: tuple[int, ...]) -> Floats:
        return fit_relative(features[list(kept)], measured[list(kept)])

    fewest = max(len(measured) / 2, 2 * features.shape[1])
    scores = np.empty(len(scored))
    for position, network in enumerate(scored):
        kept = tuple(each for each, batch in enumerate(batches) if batch != batches[network])
        if len(kept) < fewest:
            kept = tuple(each for each in range(len(measured)) if each != network)
        predicted = float(features[network] @ fit_on(kept))
        scores[position] = abs(math.log(measured[network] / predicted)) if predicted > 0 else math.inf
    return scores


def conformal_factor(scores: Floats, coverage: float) -> tuple[float, float]:
    """The factor on either side of a prediction, and the coverage that it has."""
    count = len(scores)
    rank = min(math.ceil((count + 1) * coverage), count)
    return math.exp(float(np.sort(scores)[rank - 1])), min(coverage, rank / (count + 1))
