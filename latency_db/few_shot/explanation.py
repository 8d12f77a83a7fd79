"""How well known devices explain the samples of a new one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latency_db.few_shot.prior import Array

WELL_EXPLAINED = 0.1
"""Samples that miss by no more are explained, whatever known devices reach."""


@dataclass(frozen=True)
class Explanation:
    """How far samples are from what the others say of them, beside what is usual.

    Attributes:
        error: each sample is predicted from the others; half of them miss by no more than this share.
        known_errors: the same of every known machine, predicted from the other ones by as many samples; empty
            with fewer than three machines.
    """

    error: float
    known_errors: tuple[float, ...]

    @classmethod
    def of_logs(cls, left_out: Array, known_errors: Array, power: float) -> Explanation:
        """From errors of the logs of latencies to the power of ``power``.

        left_out (n,): of the samples; known_errors (n_machines,): typical ones.
        """
        typical = np.append(known_errors, np.median(np.abs(left_out)))
        *known, error = np.expm1(typical / power).tolist()
        return cls(error, tuple(sorted(known)))

    @property
    def bound(self) -> float:
        """The error up to which the samples count as explained: the known machine that is told worst."""
        return max((WELL_EXPLAINED, *self.known_errors))

    @property
    def is_good(self) -> bool:
        """Whether the new device is no stranger: its samples miss no more than is usual."""
        return self.error <= self.bound
