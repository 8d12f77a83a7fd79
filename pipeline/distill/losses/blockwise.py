"""Block-wise supervision: the teacher's map at the end of every stage, all stages alike (DNA, 1911.13053)."""

from __future__ import annotations

from torch import Tensor

from pipeline.distill.losses.fitnet import FitNetLoss

_LEAST = 1e-12
"""Variance of a map that is the same everywhere."""


class BlockwiseLoss(FitNetLoss):
    """``mean (r(S) - T)^2 / var T`` of the maps that end a stage, and the mean over the stages.

    The variance is over all elements of the teacher's map in the batch, so that a stage weighs the same at
    any scale of its features, as section 3.3 of the paper compares blocks. There each block is fed the
    teacher's features, and method ``dna`` does so; here the student's own features go on. The connector r is
    a 1x1 convolution from the student's width to the teacher's.
    """

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean squared difference behind the connector, as a share of the teacher's variance."""
        return super().compare(number, student, teacher) / teacher.var(correction=0).clamp(min=_LEAST)
