from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.losses.base import Step
from pipeline.distill.losses.soft_targets import SoftTargetsLoss


def _logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) * 3


def _step(student: torch.Tensor, teacher: torch.Tensor) -> Step:
    return Step(torch.zeros(len(student), dtype=torch.long), student, teacher[None])


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_loss_and_gradient_are_zero_when_the_student_equals_the_teacher(
    seed: int, temperature: float
) -> None:
    student = _logits(seed).requires_grad_()
    loss = SoftTargetsLoss(temperature)(_step(student, student.detach().clone()))
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.allclose(loss, torch.zeros(()), atol=1e-4)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-5)


def test_loss_equals_the_formula_written_out() -> None:
    student, teacher, temperature = _logits(0), _logits(1), 4.0
    p, q = torch.softmax(teacher / temperature, 1), torch.softmax(student / temperature, 1)
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    assert torch.allclose(SoftTargetsLoss(temperature)(_step(student, teacher)), expected, atol=1e-5)


def test_the_gradient_of_an_ensemble_is_the_mean_of_its_members_gradients() -> None:
    student, members = _logits(0).requires_grad_(), torch.stack([_logits(seed) for seed in (1, 2, 3)])
    labels, loss = torch.zeros(6, dtype=torch.long), SoftTargetsLoss(4.0)
    (together,) = torch.autograd.grad(loss(Step(labels, student, members)), student)
    each = [loss(_step(student, member)) for member in members]
    (mean,) = torch.autograd.grad(torch.stack(each).mean(), student)
    assert torch.allclose(together, mean, atol=1e-6)


def test_gradient_tends_to_the_distance_of_centred_logits_when_the_temperature_is_high() -> None:
    student, teacher = _logits(2).requires_grad_(), _logits(3)
    loss = SoftTargetsLoss(1e3)(_step(student, teacher))
    (gradient,) = torch.autograd.grad(loss, student)
    difference = student.detach() - teacher
    expected = (difference - difference.mean(1, keepdim=True)) / student.numel()
    assert torch.allclose(gradient, expected, atol=2e-3)
