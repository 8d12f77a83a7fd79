"""A Gaussian process on normal scores: what is likely of a value, given a few others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Shape(NamedTuple):
    """Length of the kernel in mean squared distances, and variance of the noise."""

    length: float
    noise: float


_SHAPES = [Shape(*pair) for pair in itertools.product((0.25, 0.5, 1.0, 2.0, 4.0), (0.01, 0.1, 0.3))]


class GaussianProcess:
    """With the kernel ``exp(-squared distance / length)``, unit variance, and noise.

    After Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.

    Args:
        features: of what is known, shape (n, n_features).
        scores: its values, shape (n,).
        shape: of the kernel.
    """

    def __init__(self, features: Floats, scores: Floats, shape: Shape) -> None:
        self._features = features
        distances = _squared_distances(features, features)
        self._scale = shape.length * (float(distances.mean()) or 1.0)
        covariance = np.exp(-distances / self._scale) + shape.noise * np.eye(len(features))
        self._factor = np.linalg.cholesky(covariance)
        self._whitened = np.linalg.solve(self._factor, scores)

    @property
    def log_likelihood(self) -> float:
        """Of the scores, up to a constant."""
        return float(-0.5 * self._whitened @ self._whitened - np.log(np.diag(self._factor)).sum())

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations without the noise, shape (n,) each, at features (n, n_features)."""
        shared = np.exp(-_squared_distances(self._features, features) / self._scale)
        whitened = np.linalg.solve(self._factor, shared)
        return self._whitened @ whitened, np.sqrt(np.maximum(0.0, 1 - (whitened**2).sum(axis=0)))


def best_shape(features: Floats, scores: Floats) -> Shape:
    """The shape of the highest marginal likelihood on a grid."""
    return max(_SHAPES, key=lambda shape: GaussianProcess(features, scores, shape).log_likelihood)


def normal_scores(values: Sequence[float]) -> Floats:
    """Quantiles of the normal distribution by rank, equal ones for equal values."""
    _, inverse, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2
    quantiles = np.array([NormalDist().inv_cdf(middle / len(values)) for middle in middles])
    scores: Floats = quantiles[inverse]
    return scores


def _squared_distances(one: Floats, other: Floats) -> Floats:
    products = one @ other.T
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * products
    distances: Floats = np.maximum(0.0, squares)
    return distances
