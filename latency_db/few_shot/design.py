"""Which architectures tell the most about a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latency_db.few_shot.prior import Array

Indices = NDArray[np.int64]


def most_informative(
    design: Array, covariance: Array, noise: Array, count: int, excluded: Indices | None = None
) -> Indices:
    """Rows (count,) of design (n, p), each of which lowers the mean variance over all rows the most.

    Greedy A-optimal design. covariance (p, p): of the weights; noise (n,): variance of a measurement. The
    columns are all but white, so the mean variance is the trace of the weights' covariance.
    """
    products = design @ covariance
    variance = np.einsum("ij,ij->i", products, design) + noise
    gain = np.einsum("ij,ij->i", products, products)
    barred = np.zeros(len(variance), dtype=bool)
    barred[[] if excluded is None else excluded] = True
    chosen = np.empty(count, dtype=np.int64)
    for step in range(count):
        best = int(np.where(barred, -1.0, gain / variance).argmax())
        chosen[step] = best
        barred[best] = True
        direction = products[best].copy()
        along = design @ direction
        products -= np.outer(along, direction / variance[best])
        gain = np.einsum("ij,ij->i", products, products)
        variance = np.maximum(variance - along**2 / variance[best], noise)
    return chosen
