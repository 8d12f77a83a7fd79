"""Soft targets of the teacher (Hinton, Vinyals and Dean, 1503.02531, section 2)."""

from __future__ import annotations

from torch import Tensor

from pipeline.distill.losses.base import Loss, Step


class SoftTargetsLoss(Loss):
    """The task's loss with what the teacher says.

    Of a single label ``T^2 KL(p^T || q^T)``, p of the teacher and q of the student, averaged over the batch.
    The T^2 keeps the gradient independent of the temperature to first order. Of an ensemble, p^T is the mean
    of its members' softened probabilities.

    Args:
        temperature: T, by which the logits of both are divided.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, step: Step) -> Tensor:
        """Of a single label the divergence times the squared temperature."""
        return step.task.teacher_loss(step.student_logits, step.member_logits, self._temperature)
