"""Cross-entropy with the labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.distill.losses.base import Loss, Step


class LabelsLoss(Loss):
    """``CE(y, q)``, averaged over the batch."""

    def forward(self, step: Step) -> Tensor:
        """The mean cross-entropy of the student's logits."""
        return functional.cross_entropy(step.student_logits, step.labels)
