"""The Gaussian process that the predictor asks: scikit-learn's, over normal scores and groups of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Kernel, WhiteKernel

Floats = NDArray[np.float64]
Groups = Sequence[Floats]
"""Features of some points, by group: shape (n, n_features of the group) each."""


class Shape(NamedTuple):
    """Lengths of the kernel, in mean squared distances of each group, and variance of the noise."""

    lengths: tuple[float, ...]
    noise: float


_LENGTH, _NOISE = 2.0, 0.08
_LENGTHS, _NOISES = (0.125, 64.0), (0.01, 0.64)
_STEPS = 20
_PRIOR = 0.05
"""Weight of the squared distance to the initial shape in doublings, in units of log likelihood."""


def initial_shape(groups: int) -> Shape:
    """The shape for so many groups of features, before any score is known."""
    return Shape((_LENGTH,) * groups, _NOISE)


class GaussianProcess:
    """With the kernel ``exp(-sum of squared distance / length over groups)``, unit variance, and noise.

    Args:
        groups: features of what is known, n points.
        scores: its values, shape (n,).
        shape: of the kernel, with a length for each group.
    """

    def __init__(self, groups: Groups, scores: Floats, shape: Shape) -> None:
        self._scales = _scales(groups)
        self._noise, self._scores = shape.noise, scores
        self._process = GaussianProcessRegressor(_kernel(groups, shape), optimizer=None)
        self._process.fit(_columns(groups, self._scales), scores)

    def predict(self, groups: Groups) -> tuple[Floats, Floats]:
        """Means and standard deviations without the noise, shape (n,) each, at n points."""
        means, deviations = self._process.predict(_columns(groups, self._scales), return_std=True)
        return means, np.sqrt(np.maximum(0.0, deviations**2 - self._noise))

    def held_out(self) -> Floats:
        """The mean at each point that is known, had its own score not been; shape (n,).

        Without fitting n times (Rasmussen and Williams, 2006, equation 5.12).
        """
        inverse = cho_solve((self._process.L_, True), np.eye(len(self._scores)))
        means: Floats = self._scores - self._process.alpha_ / np.diag(inverse)
        return means


def better_shape(groups: Groups, scores: Floats, start: Shape) -> Shape:
    """The shape of highest marginal likelihood that is found by following the gradient from ``start``.

    A weak log-normal prior keeps near ``initial_shape`` what the scores say nothing about.
    """
    process = GaussianProcessRegressor(_kernel(groups, start), optimizer=None)
    process.fit(_columns(groups, _scales(groups)), scores)
    expected = _kernel(groups, initial_shape(len(groups))).theta
    # A kernel's length is a distance, a shape's a squared one: a doubling of it is half a doubling here.
    per_doubling = np.array([2.0] * len(groups) + [1.0]) / math.log(2)

    def loss(theta: Floats) -> tuple[float, Floats]:
        likelihood, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        doublings = (theta - expected) * per_doubling
        return _PRIOR * doublings @ doublings - likelihood, 2 * _PRIOR * doublings * per_doubling - slope

    kernel = process.kernel_
    found = minimize(loss, kernel.theta, jac=True, bounds=kernel.bounds, options={"maxiter": _STEPS})
    *lengths, noise = np.exp(found.x).tolist()
    return Shape(tuple(2 * length**2 for length in lengths), noise)


def normal_scores(values: Sequence[float]) -> Floats:
    """Quantiles of the normal distribution by rank, equal ones for equal values."""
    scores: Floats = ndtri((rankdata(values) - 0.5) / len(values))
    return scores


class _OnColumns(RBF):  # type: ignore[misc]
    """``RBF`` of the columns from ``first`` to ``end``; the length is one for all of them."""

    def __init__(
        self, first: int, end: int, length_scale: float, length_scale_bounds: tuple[float, float]
    ) -> None:
        super().__init__(length_scale, length_scale_bounds)
        self.first, self.end = first, end

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        columns = slice(self.first, self.end)
        return super().__call__(X[:, columns], None if Y is None else Y[:, columns], eval_gradient)


def _kernel(groups: Groups, shape: Shape) -> Kernel:
    ends = np.cumsum([features.shape[1] for features in groups]).tolist()
    bounds = math.sqrt(_LENGTHS[0] / 2), math.sqrt(_LENGTHS[1] / 2)
    kernels = [
        _OnColumns(first, end, math.sqrt(length / 2), bounds)
        for first, end, length in zip([0, *ends], ends, shape.lengths, strict=False)
    ]
    return math.prod(kernels[1:], start=kernels[0]) + WhiteKernel(shape.noise, _NOISES)


def _scales(groups: Groups) -> list[float]:
    """Root of the mean squared distance between two points, by group; 1 where all are the same."""
    return [math.sqrt(2 * float(features.var(axis=0).sum())) or 1.0 for features in groups]


def _columns(groups: Groups, scales: Sequence[float]) -> Floats:
    """All features side by side, with a mean squared distance of 1 within each group of what is known."""
    return np.hstack([features / scale for features, scale in zip(groups, scales, strict=True)])
