"""What the labels teach."""

from __future__ import annotations

from torch import Tensor

from pipeline.distill.losses.base import Loss, Step


class LabelsLoss(Loss):
    """The task's loss with the labels: of a single label ``CE(y, q)``, averaged over the batch."""

    def forward(self, step: Step) -> Tensor:
        """The task's loss of what the student says."""
        return step.task.label_loss(step.student_logits, step.labels)
