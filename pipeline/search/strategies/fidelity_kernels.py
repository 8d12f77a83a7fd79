"""Kernels of scikit-learn over the fidelity of scores, which is the last column of what they are given.

They follow Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast approximations
are available" (2000): what a fidelity measures is ``slope`` times what the next cheaper one measures, plus
``own`` times something that the cheaper one knows nothing of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

Floats = NDArray[np.float64]

_OWNS, _SLOPES = (0.05, 5.0), (0.05, 10.0)
OFFSET = 4.0
"""Variance of what all scores of a dearer fidelity have in common: more than normal scores can differ."""


def related(owns: Floats, slopes: Floats) -> Floats:
    """Covariances between fidelities at one network, shape (n, n) for n fidelities, the cheapest first.

    Args:
        owns: of all but the cheapest, shape (n - 1,).
        slopes: likewise.
    """
    weights = _weights(owns, slopes)
    covariances: Floats = weights @ weights.T
    return covariances


def _weights(owns: Floats, slopes: Floats) -> Floats:
    """How much of each fidelity's own is in each: row by row of a lower triangle, shape (n, n)."""
    count = 1 + len(owns)
    weights = np.diag(np.concatenate([[1.0], owns]))
    for level in range(1, count):
        weights[level] += slopes[level - 1] * weights[level - 1]
    return weights


class _OnLevels(Kernel):  # type: ignore[misc]
    """A kernel over the last column."""

    def is_stationary(self) -> bool:
        """It depends on more than a difference."""
        return False


class Related(_OnLevels):
    """``related`` of the fidelities of two scores."""

    def __init__(
        self,
        owns: Floats,
        slopes: Floats,
        owns_bounds: tuple[float, float] = _OWNS,
        slopes_bounds: tuple[float, float] = _SLOPES,
    ) -> None:
        self.owns, self.slopes = owns, slopes
        self.owns_bounds, self.slopes_bounds = owns_bounds, slopes_bounds

    @property
    def hyperparameter_owns(self) -> Hyperparameter:
        """One for each dearer fidelity."""
        return Hyperparameter("owns", "numeric", self.owns_bounds, np.size(self.owns))

    @property
    def hyperparameter_slopes(self) -> Hyperparameter:
        """Likewise."""
        return Hyperparameter("slopes", "numeric", self.slopes_bounds, np.size(self.slopes))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        """Covariances, and their gradient by the logarithms of ``owns`` and ``slopes``."""
        owns, slopes = np.atleast_1d(self.owns), np.atleast_1d(self.slopes)
        rows = _levels(X)
        columns = rows if Y is None else _levels(Y)
        value = related(owns, slopes)[rows][:, columns]
        if not eval_gradient:
            return value
        weights = _weights(owns, slopes)
        changes = []
        for level in range(1, len(weights)):
            changes.append(np.where(np.arange(len(weights)) == level, weights, 0.0))
        for level in range(1, len(weights)):
            # A slope is in the weights of its fidelity and the dearer ones, on what is cheaper.
            below = np.arange(len(weights))[:, None] >= level
            changes.append(np.where(below & (np.arange(len(weights)) < level), weights, 0.0))
        gradients = [change @ weights.T + weights @ change.T for change in changes]
        return value, np.stack([each[rows][:, columns] for each in gradients], axis=-1)

    def diag(self, X: Floats) -> Floats:
        """Variances."""
        variances: Floats = np.diag(related(np.atleast_1d(self.owns), np.atleast_1d(self.slopes)))
        return variances[_levels(X)]


class Noise(_OnLevels):
    """Independent noise of each score, with a variance for each fidelity."""

    def __init__(self, noises: Floats, noises_bounds: tuple[float, float]) -> None:
        self.noises, self.noises_bounds = noises, noises_bounds

    @property
    def hyperparameter_noises(self) -> Hyperparameter:
        """One for each fidelity."""
        return Hyperparameter("noises", "numeric", self.noises_bounds, np.size(self.noises))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        """Covariances, and their gradient by the logarithms of ``noises``."""
        if Y is not None:
            return np.zeros((len(X), len(Y)))
        noise = np.diag(self.diag(X))
        if not eval_gradient:
            return noise
        own = _levels(X)[:, None] == np.arange(np.size(self.noises))
        return noise, noise[:, :, None] * own[:, None, :]

    def diag(self, X: Floats) -> Floats:
        """Variances."""
        return np.atleast_1d(self.noises)[_levels(X)]


class Offsets(_OnLevels):
    """What all scores of one fidelity have in common; the cheapest one's normal scores have a mean of 0."""

    def __init__(self, variance: float = OFFSET) -> None:
        self.variance = variance

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        """Covariances; there is nothing to learn."""
        rows = _levels(X)
        columns = rows if Y is None else _levels(Y)
        value = self.variance * ((rows[:, None] == columns) & (rows[:, None] > 0))
        return (value, np.empty((*value.shape, 0))) if eval_gradient else value

    def diag(self, X: Floats) -> Floats:
        """Variances."""
        return np.where(_levels(X) > 0, self.variance, 0.0)


def _levels(columns: Floats) -> NDArray[np.int_]:
    return columns[:, -1].astype(int)
