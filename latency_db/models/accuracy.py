"""How well estimates meet measurements, beside simpler predictions and beside what repeating can reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Predicted against measured latencies of networks.

    Attributes:
        networks: how many.
        within_5_percent: share whose prediction is off by at most 5 % of the measured latency.
        within_10_percent: the same for 10 %.
        mape: mean absolute percentage error, as a share.
        spearman: rank correlation; NaN where either side is constant.
        covered: share of measured latencies inside the intervals; ``None`` for predictions without.
        coverage: what the intervals claim.
    """

    networks: int
    within_5_percent: float
    within_10_percent: float
    mape: float
    spearman: float
    covered: float | None = None
    coverage: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """As JSON, where an undefined correlation is null."""
        return {
            **vars(self),
            "spearman": None if np.isnan(self.spearman) else self.spearman,
        }


def accuracy_of(
    measured_ns: Sequence[float],
    predicted_ns: Sequence[float],
    intervals_ns: Sequence[tuple[float, float]] | None = None,
    coverage: float | None = None,
) -> Accuracy:
    """Compare predictions, and intervals if they have any, with measurements of the same networks.

    Raises:
        ValueError: there are none, the lengths differ, or a value is not positive and finite.
    """
    measured, predicted = np.asarray(measured_ns, np.float64), np.asarray(predicted_ns, np.float64)
    if not len(measured) or measured.shape != predicted.shape:
        raise ValueError(f"{len(measured)} measured and {len(predicted)} predicted latencies")
    if not (np.isfinite(measured) & (measured > 0) & np.isfinite(predicted) & (predicted > 0)).all():
        raise ValueError("latencies are positive and finite")
    errors = np.abs(predicted / measured - 1)
    covered = None
    if intervals_ns is not None:
        low, high = np.asarray(intervals_ns, np.float64).T
        covered = float(((low <= measured) & (measured <= high)).mean())
    return Accuracy(
        len(measured),
        float((errors <= 0.05).mean()),
        float((errors <= 0.10).mean()),
        float(errors.mean()),
        spearman(measured, predicted),
        covered,
        coverage,
    )


def spearman(one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> float:
    """Correlation of ranks, equal values sharing their mean rank; NaN where either is constant."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(spearmanr(one, other).statistic)


def straight_line(features: Sequence[float], measured_ns: Sequence[float]) -> tuple[float, float]:
    """Slope and offset that minimise the relative errors: the best baseline of one feature."""
    measured = np.asarray(measured_ns, np.float64)
    columns = np.stack([np.asarray(features, np.float64), np.ones(len(measured))], axis=1)
    slope, offset = np.linalg.lstsq(columns / measured[:, None], np.ones(len(measured)), rcond=None)[0]
    return float(slope), float(offset)
