"""A Gaussian process on normal scores: what is likely of a value, given a few others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Groups = Sequence[Floats]
"""Features of some points, by group: shape (n, n_features of the group) each."""


class Shape(NamedTuple):
    """Lengths of the kernel, in mean squared distances of each group, and variance of the noise."""

    lengths: tuple[float, ...]
    noise: float


_LENGTH, _NOISE = (0.125, 64.0), (0.01, 0.64)
INITIAL_SHAPE = Shape((2.0, 2.0), 0.08)
_STEP = 2.0
_MOVES = 8
_PRIOR = 0.05


class GaussianProcess:
    """With the kernel ``exp(-sum of squared distance / length over groups)``, unit variance, and noise.

    After Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.

    Args:
        groups: features of what is known, n points.
        scores: its values, shape (n,).
        shape: of the kernel, with a length for each group.
    """

    def __init__(self, groups: Groups, scores: Floats, shape: Shape) -> None:
        self._groups = groups
        distances = [_squared_distances(features, features) for features in groups]
        self._scales = [
            length * (float(each.mean()) or 1.0)
            for length, each in zip(shape.lengths, distances, strict=True)
        ]
        covariance = _kernel(distances, self._scales) + shape.noise * np.eye(len(scores))
        self._factor = np.linalg.cholesky(covariance)
        self._whitened = np.linalg.solve(self._factor, scores)

    @property
    def log_likelihood(self) -> float:
        """Of the scores, up to a constant."""
        return float(-0.5 * self._whitened @ self._whitened - np.log(np.diag(self._factor)).sum())

    def predict(self, groups: Groups) -> tuple[Floats, Floats]:
        """Means and standard deviations without the noise, shape (n,) each, at n points."""
        distances = [_squared_distances(*pair) for pair in zip(self._groups, groups, strict=True)]
        whitened = np.linalg.solve(self._factor, _kernel(distances, self._scales))
        return self._whitened @ whitened, np.sqrt(np.maximum(0.0, 1 - (whitened**2).sum(axis=0)))


def better_shape(groups: Groups, scores: Floats, start: Shape = INITIAL_SHAPE) -> Shape:
    """A shape of high marginal likelihood: from ``start``, lengths and noise are doubled or halved in turn.

    A weak log-normal prior keeps near ``INITIAL_SHAPE`` what the scores say nothing about.
    """

    def merit(shape: Shape) -> float:
        pairs = zip((*shape.lengths, shape.noise), (*INITIAL_SHAPE.lengths, INITIAL_SHAPE.noise), strict=True)
        away = sum(math.log2(value / initial) ** 2 for value, initial in pairs)
        return GaussianProcess(groups, scores, shape).log_likelihood - _PRIOR * away

    best, highest = start, merit(start)
    for _ in range(_MOVES):
        merits = {shape: merit(shape) for shape in _neighbours(best)}
        shape = max(merits, key=merits.__getitem__)
        if merits[shape] <= highest:
            break
        best, highest = shape, merits[shape]
    return best


def normal_scores(values: Sequence[float]) -> Floats:
    """Quantiles of the normal distribution by rank, equal ones for equal values."""
    _, inverse, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2
    quantiles = np.array([NormalDist().inv_cdf(middle / len(values)) for middle in middles])
    scores: Floats = quantiles[inverse]
    return scores


def _neighbours(shape: Shape) -> Iterator[Shape]:
    for factor in (_STEP, 1 / _STEP):
        for index, length in enumerate(shape.lengths):
            if _LENGTH[0] <= length * factor <= _LENGTH[1]:
                lengths = (*shape.lengths[:index], length * factor, *shape.lengths[index + 1 :])
                yield Shape(lengths, shape.noise)
        if _NOISE[0] <= shape.noise * factor <= _NOISE[1]:
            yield Shape(shape.lengths, shape.noise * factor)


def _kernel(distances: Groups, scales: Sequence[float]) -> Floats:
    exponents = [each / scale for each, scale in zip(distances, scales, strict=True)]
    covariances: Floats = np.exp(-np.sum(exponents, axis=0))
    return covariances


def _squared_distances(one: Floats, other: Floats) -> Floats:
    products = one @ other.T
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * products
    distances: Floats = np.maximum(0.0, squares)
    return distances
