"""Soft targets of those members of an ensemble that are right (oracle KD, Kang et al., 1911.13019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.distill.losses.base import Loss, Step


class OracleLoss(Loss):
    """``T^2 KL(m || q^T)`` where a member is right, ``CE(y, q)`` where none is, averaged over the batch.

    m is the mean of the softened probabilities of the members that classify the image rightly,
    ``sum_j u_j p_j^T / sum_j u_j`` with u_j = 1 for a right member j and 0 for a wrong one. That has the
    gradient of the paper's loss, the mean of ``T^2 KL(p_j^T || q^T)`` over the right members. A member is
    judged by the image that the student sees, augmentation included.

    Beside ``1 - w`` of cross-entropy with the labels, a weight of w makes the whole loss of an image equal
    the average of the members' ordinary distillation where all are right, and ``CE(y, q)`` where none is: the
    paper's mixture, in which every image weighs the same. How the paper splits the weights is not known.

    Args:
        temperature: T, by which the logits of both are divided.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, step: Step) -> Tensor:
        """The mean over the images, each by its own rule."""
        right = step.member_logits.argmax(dim=2) == step.labels
        count = right.sum(dim=0)
        # Where none is right the value is not used, but its gradient must be finite.
        used = right | (count == 0)
        members = functional.log_softmax(step.member_logits / self._temperature, dim=2)
        mean = members.masked_fill(~used[..., None], -torch.inf).logsumexp(dim=0)
        mean = mean - used.sum(dim=0)[:, None].log()
        student = functional.log_softmax(step.student_logits / self._temperature, dim=1)
        divergence = functional.kl_div(student, mean, reduction="none", log_target=True).sum(dim=1)
        labels = functional.cross_entropy(step.student_logits, step.labels, reduction="none")
        return torch.where(count > 0, self._temperature**2 * divergence, labels).mean()
