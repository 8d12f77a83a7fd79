"""The Gaussian process that the predictor asks: scikit-learn's, over normal scores and groups of features.

Scores may be of several fidelities, each a line through the next cheaper one and something of its own
(Kennedy and O'Hagan, 2000).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Kernel

from pipeline.search.strategies.fidelity_kernels import OFFSET, Noise, Offsets, Related, related

Floats = NDArray[np.float64]
Groups = Sequence[Floats]
"""Features of some points, by group: shape (n, n_features of the group) each."""
Levels = NDArray[np.int_]
"""Fidelities of some scores by number, 0 for the cheapest: shape (n,)."""


class Link(NamedTuple):
    """How a fidelity follows from the next cheaper one: ``slope`` of that, ``own`` of its own, and noise."""

    slope: float
    own: float
    noise: float


class Shape(NamedTuple):
    """Lengths of the kernel, in mean squared distances of each group, and variance of the noise.

    Attributes:
        noise: of the cheapest fidelity.
        links: of each dearer one, in order.
    """

    lengths: tuple[float, ...]
    noise: float
    links: tuple[Link, ...] = ()


_LENGTH, _NOISE = 2.0, 0.08
_LENGTHS, _NOISES = (0.125, 64.0), (0.01, 0.64)
_LINK = Link(1.0, 0.5, _NOISE)
_STEPS = 20
_PRIOR = 0.05
"""Weight of the squared distance to the initial shape in doublings, in units of log likelihood."""


def initial_shape(groups: int, fidelities: int = 1) -> Shape:
    """The shape for so many groups of features, before any score is known."""
    return Shape((_LENGTH,) * groups, _NOISE, (_LINK,) * (fidelities - 1))


class GaussianProcess:
    """With the kernel ``exp(-sum of squared distance / length over groups)``, and noise.

    The cheapest fidelity has unit variance. Normal scores of another one may begin anywhere, so it has an
    offset, of which nothing is assumed.

    Args:
        groups: features of what is known, n points.
        scores: its values, shape (n,).
        shape: of the kernel, with a length for each group.
        levels: fidelities of the scores; all the cheapest without.
    """

    def __init__(self, groups: Groups, scores: Floats, shape: Shape, levels: Levels | None = None) -> None:
        self._scales = _scales(groups)
        self._levels = np.zeros(len(scores), int) if levels is None else levels
        self._noises = [shape.noise, *(link.noise for link in shape.links)]
        self._related = related(*_links(shape))
        self._scores = scores
        self._alike = _alike(groups, shape)
        self._columns = _columns(groups, self._scales, self._levels)
        self._process = GaussianProcessRegressor(_kernel(groups, shape), optimizer=None)
        self._process.fit(self._columns, scores)

    def predict(self, groups: Groups, level: int = -1) -> tuple[Floats, Floats]:
        """Means and standard deviations without the noise, shape (n,) each, at n points.

        How far the offset of a fidelity is unknown does not count: it is the same everywhere.

        Args:
            groups: features of the points.
            level: the fidelity, by default the dearest.
        """
        means, explained = self._explained(groups, level)
        variances = self._related[level, level] - (explained**2).sum(axis=0)
        return means, np.sqrt(np.maximum(0.0, variances))

    def tells(self, groups: Groups, level: int) -> Floats:
        """Correlations of a score that this fidelity would give with the dearest one's truth, shape (n,)."""
        _, cheap = self._explained(groups, level)
        _, dear = self._explained(groups, -1)
        together = self._related[level, -1] - (cheap * dear).sum(axis=0)
        variance = self._related[level, level] - (cheap**2).sum(axis=0) + self._noises[level]
        truth = np.maximum(self._related[-1, -1] - (dear**2).sum(axis=0), 1e-12)
        return np.asarray(np.clip(together / np.sqrt(variance * truth), 0.0, 1.0))

    def held_out(self) -> Floats:
        """The mean at each point that is known, had its own score not been; shape (n,).

        Without fitting n times (Rasmussen and Williams, 2006, equation 5.12).
        """
        inverse = cho_solve((self._process.L_, True), np.eye(len(self._scores)))
        means: Floats = self._scores - self._process.alpha_ / np.diag(inverse)
        return means

    def _explained(self, groups: Groups, level: int) -> tuple[Floats, Floats]:
        """Means at n points, and what is known of each: shape (n_known, n), squares sum to a variance."""
        level %= len(self._noises)
        points = _columns(groups, self._scales, np.full(len(groups[0]), level))
        shared = self._alike(points, self._columns) * self._related[level, self._levels]
        means = shared @ self._process.alpha_
        if level > 0:
            means += OFFSET * self._process.alpha_[self._levels == level].sum()
        return means, solve_triangular(self._process.L_, shared.T, lower=True)


def better_shape(groups: Groups, scores: Floats, start: Shape, levels: Levels | None = None) -> Shape:
    """The shape of highest marginal likelihood that is found by following the gradient from ``start``.

    A weak log-normal prior keeps near ``initial_shape`` what the scores say nothing about.
    """
    process = GaussianProcessRegressor(_kernel(groups, start), optimizer=None)
    levels = np.zeros(len(scores), int) if levels is None else levels
    process.fit(_columns(groups, _scales(groups), levels), scores)
    count, dearer = len(groups), len(start.links)
    expected = _kernel(groups, initial_shape(count, 1 + dearer)).theta
    # A kernel's length is a distance, a shape's a squared one: a doubling of it is half a doubling here.
    per_doubling = np.array([2.0] * count + [1.0] * (len(expected) - count)) / math.log(2)

    def loss(theta: Floats) -> tuple[float, Floats]:
        likelihood, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        doublings = (theta - expected) * per_doubling
        return _PRIOR * doublings @ doublings - likelihood, 2 * _PRIOR * doublings * per_doubling - slope

    kernel = process.kernel_
    found = minimize(loss, kernel.theta, jac=True, bounds=kernel.bounds, options={"maxiter": _STEPS})
    values = np.exp(found.x).tolist()
    lengths, owns, slopes, (noise, *noises) = (
        values[first:end]
        for first, end in itertools.pairwise([0, count, count + dearer, count + 2 * dearer, len(values)])
    )
    links = tuple(Link(*each) for each in zip(slopes, owns, noises, strict=True))
    return Shape(tuple(2 * length**2 for length in lengths), noise, links)


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


def _alike(groups: Groups, shape: Shape) -> Kernel:
    """How alike networks are, whatever the fidelity."""
    ends = np.cumsum([features.shape[1] for features in groups]).tolist()
    bounds = math.sqrt(_LENGTHS[0] / 2), math.sqrt(_LENGTHS[1] / 2)
    kernels = [
        _OnColumns(first, end, math.sqrt(length / 2), bounds)
        for first, end, length in zip([0, *ends], ends, shape.lengths, strict=False)
    ]
    return math.prod(kernels[1:], start=kernels[0])


def _kernel(groups: Groups, shape: Shape) -> Kernel:
    noises = np.array([shape.noise, *(link.noise for link in shape.links)])
    alike = _alike(groups, shape)
    if not shape.links:
        return alike + Noise(noises, _NOISES)
    owns, slopes = _links(shape)
    return alike * Related(owns, slopes) + Offsets() + Noise(noises, _NOISES)


def _links(shape: Shape) -> tuple[Floats, Floats]:
    """What fidelities have of their own, and their slopes."""
    return np.array([each.own for each in shape.links]), np.array([each.slope for each in shape.links])


def _scales(groups: Groups) -> list[float]:
    """Root of the mean squared distance between two points, by group; 1 where all are the same."""
    return [math.sqrt(2 * float(features.var(axis=0).sum())) or 1.0 for features in groups]


def _columns(groups: Groups, scales: Sequence[float], levels: Levels) -> Floats:
    """All features side by side, with a mean squared distance of 1 within each group of what is known.

    The last column is the fidelity.
    """
    features = [features / scale for features, scale in zip(groups, scales, strict=True)]
    return np.hstack([*features, levels[:, None]])
