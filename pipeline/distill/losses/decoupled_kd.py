"""Decoupled knowledge distillation (Zhao et al., 2203.08679, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.distill.losses.base import Loss, Step


class DecoupledKdLoss(Loss):
    """``T^2 (alpha TCKD + beta NCKD)``, averaged over the batch.

    TCKD is the divergence of the pairs (probability of the right class, of all others together), NCKD the
    divergence of the probabilities among the others. Ordinary soft targets are
    ``TCKD + (1 - p_right) NCKD`` with the teacher's ``p_right`` of each image (equation 7), which nearly lose
    what a sure teacher knows of the other classes.

    Args:
        alpha: weight of the right class.
        beta: weight of the other classes.
        temperature: T, by which the logits of both are divided.
    """

    def __init__(self, alpha: float, beta: float, temperature: float) -> None:
        super().__init__()
        self._alpha, self._beta, self._temperature = alpha, beta, temperature

    def forward(self, step: Step) -> Tensor:
        """Both parts, weighted."""
        right, others = divergences(step, self._temperature)
        return self._temperature**2 * (self._alpha * right + self._beta * others).mean()


def divergences(step: Step, temperature: float) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD of every image, each ``(N,)``."""
    student = functional.log_softmax(step.student_logits / temperature, dim=1)
    teacher = step.teacher_log_probabilities(temperature)
    right = functional.one_hot(step.labels, student.shape[1]).bool()
    binary = _divergence(_right_and_others(teacher, right), _right_and_others(student, right))
    return binary, _divergence(_among_others(teacher, right), _among_others(student, right))


def _right_and_others(log_shares: Tensor, right: Tensor) -> Tensor:
    others = log_shares.masked_fill(right, -torch.inf).logsumexp(dim=1)
    return torch.stack([log_shares[right], others], dim=1)


def _among_others(log_shares: Tensor, right: Tensor) -> Tensor:
    count, classes = log_shares.shape
    return functional.log_softmax(log_shares[~right].view(count, classes - 1), dim=1)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
