from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.losses.base import Step
from pipeline.distill.losses.decoupled_kd import DecoupledKdLoss, divergences
from pipeline.distill.losses.soft_targets import SoftTargetsLoss


def _step(seed: int, classes: int = 5) -> Step:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(7, classes, generator=generator) * 2 for _ in range(2))
    labels = torch.randint(0, classes, (7,), generator=generator)
    return Step(labels, student.requires_grad_(), teacher[None])


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_soft_targets_are_the_two_parts_with_the_teachers_doubt_as_weight(
    seed: int, temperature: float
) -> None:
    step = _step(seed)
    right, others = divergences(step, temperature)
    sure = torch.softmax(step.teacher_logits / temperature, 1)[torch.arange(7), step.labels]
    parts = temperature**2 * (right + (1 - sure) * others).mean()
    assert torch.allclose(parts, SoftTargetsLoss(temperature)(step), rtol=1e-3, atol=1e-4)


def test_loss_is_the_weighted_sum_of_both_parts() -> None:
    step = _step(1)
    right, others = divergences(step, 3.0)
    expected = 9.0 * (2.0 * right + 0.5 * others).mean()
    assert torch.allclose(DecoupledKdLoss(2.0, 0.5, 3.0)(step), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_is_zero_when_the_student_equals_the_teacher(temperature: float) -> None:
    step = _step(2)
    same = Step(step.labels, step.student_logits, step.student_logits.detach()[None])
    (gradient,) = torch.autograd.grad(DecoupledKdLoss(1.0, 8.0, temperature)(same), step.student_logits)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-5)


def test_two_classes_leave_nothing_among_the_others() -> None:
    right, others = divergences(_step(3, classes=2), 2.0)
    assert torch.equal(others, torch.zeros(7))
    assert (right > 0).all()
