from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pipeline.distill.losses.base import Step
from pipeline.distill.losses.labels import LabelsLoss
from pipeline.distill.losses.oracle import OracleLoss
from pipeline.distill.losses.soft_targets import SoftTargetsLoss

CLASSES = 5


def _step(seed: int, *, members: int = 3, images: int = 40, right: bool | None = None) -> Step:
    """Random logits; on request all members name the label, or none does."""
    generator = torch.Generator().manual_seed(seed)
    student = (torch.randn(images, CLASSES, generator=generator) * 2).requires_grad_()
    each = torch.randn(members, images, CLASSES, generator=generator) * 2
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    if right is not None:
        mark = functional.one_hot(labels, CLASSES).bool()
        each = each.masked_fill(mark, 10.0 if right else -10.0)
    return Step(labels, student, each)


def _gradient(loss: torch.Tensor, step: Step) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, step.student_logits)
    return gradient


def _written_out(step: Step, temperature: float, weight: float) -> torch.Tensor:
    """The paper's loss, member by member: the mean over the right members of ``(1 - w) CE + w T^2 KL``."""
    total = torch.zeros(())
    for i, label in enumerate(step.labels):
        q = functional.log_softmax(step.student_logits[i] / temperature, 0)
        ce = functional.cross_entropy(step.student_logits[i], label)
        right = [member[i] for member in step.member_logits if member[i].argmax() == label]
        kl = [
            functional.kl_div(
                q, functional.log_softmax(logits / temperature, 0), reduction="sum", log_target=True
            )
            for logits in right
        ]
        if kl:
            total = total + sum((1 - weight) * ce + weight * temperature**2 * each for each in kl) / len(kl)
        else:
            total = total + ce
    return total / len(step.labels)


def _mixture(step: Step, temperature: float, weight: float) -> torch.Tensor:
    return (1 - weight) * LabelsLoss()(step) + weight * OracleLoss(temperature)(step)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10), weight=st.floats(0, 1))
def test_gradient_is_that_of_the_mean_of_the_right_members_losses(
    seed: int, temperature: float, weight: float
) -> None:
    step = _step(seed)
    together = _gradient(_mixture(step, temperature, weight), step)
    apart = _gradient(_written_out(step, temperature, weight), step)
    assert torch.allclose(together, apart, rtol=1e-3, atol=1e-6)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_where_all_members_are_right_it_is_ordinary_distillation_by_their_mean(
    seed: int, temperature: float
) -> None:
    step = _step(seed, right=True)
    oracle, average = OracleLoss(temperature)(step), SoftTargetsLoss(temperature)(step)
    assert torch.allclose(oracle, average, rtol=1e-4, atol=1e-5)
    assert torch.allclose(_gradient(oracle, step), _gradient(average, step), atol=1e-6)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10), weight=st.floats(0, 1))
def test_where_no_member_is_right_it_is_cross_entropy_with_the_labels(
    seed: int, temperature: float, weight: float
) -> None:
    step = _step(seed, right=False)
    labels = LabelsLoss()(step)
    assert torch.allclose(_mixture(step, temperature, weight), labels, rtol=1e-5)
    assert torch.allclose(
        _gradient(_mixture(step, temperature, weight), step), _gradient(labels, step), atol=1e-6
    )


def test_wrong_members_do_not_count() -> None:
    step = _step(0)
    right = step.member_logits.argmax(2) == step.labels
    shuffled = step.member_logits.flip(2).masked_fill(functional.one_hot(step.labels, CLASSES).bool(), -9.0)
    other = torch.where(right[..., None], step.member_logits, shuffled)
    assert torch.equal(OracleLoss(4.0)(step), OracleLoss(4.0)(Step(step.labels, step.student_logits, other)))


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("members", [1, 4])
def test_a_batch_of_one_and_an_ensemble_of_one_have_finite_gradients(members: int, right: bool) -> None:
    step = _step(3, members=members, images=1, right=right)
    assert torch.isfinite(_gradient(OracleLoss(4.0)(step), step)).all()


def test_logits_far_apart_give_finite_gradients() -> None:
    step = _step(1)
    step = Step(step.labels, step.student_logits, step.member_logits * 1e4)
    assert torch.isfinite(_gradient(OracleLoss(1.0)(step), step)).all()
