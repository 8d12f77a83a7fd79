"""Losses of distillation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    soft_weight: float,
) -> Tensor:
    """Distillation with soft targets (Hinton, Vinyals and Dean, 1503.02531, section 2).

    ``(1 - a) CE(labels, student) + a T^2 KL(teacher^T || student^T)``, both averaged over the batch. The T^2
    keeps the gradient of the soft part independent of the temperature to first order.

    Args:
        student_logits: ``(N, classes)``.
        teacher_logits: ``(N, classes)``; no gradient flows into it.
        labels: ``(N,)`` int64.
        temperature: T > 0.
        soft_weight: a in 0..1; 0 is training with labels alone.
    """
    hard = functional.cross_entropy(student_logits, labels)
    soft = functional.kl_div(
        functional.log_softmax(student_logits / temperature, dim=1),
        functional.log_softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1.0 - soft_weight) * hard + soft_weight * temperature**2 * soft
