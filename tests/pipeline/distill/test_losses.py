import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pipeline.distill.losses import soft_target_loss


def _logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_soft_target_loss_is_cross_entropy_when_the_soft_weight_is_zero(
    seed: int, temperature: float
) -> None:
    student, teacher, labels = _logits(seed), _logits(seed + 1), torch.arange(6) % 5
    loss = soft_target_loss(student, teacher, labels, temperature=temperature, soft_weight=0)
    assert torch.isclose(loss, functional.cross_entropy(student, labels))


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_soft_target_loss_is_zero_when_the_student_equals_the_teacher(seed: int, temperature: float) -> None:
    logits = _logits(seed)
    loss = soft_target_loss(
        logits, logits, torch.zeros(6, dtype=torch.long), temperature=temperature, soft_weight=1
    )
    assert abs(float(loss)) < 1e-9


def test_soft_target_loss_equals_the_formula_written_out() -> None:
    student, teacher, labels = _logits(0), _logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    temperature, weight = 4.0, 0.9
    p, q = torch.softmax(teacher / temperature, 1), torch.softmax(student / temperature, 1)
    divergence = (p * (p / q).log()).sum() / 6
    hard = -torch.softmax(student, 1)[torch.arange(6), labels].log().mean()
    expected = (1 - weight) * hard + weight * temperature**2 * divergence
    loss = soft_target_loss(student, teacher, labels, temperature=temperature, soft_weight=weight)
    assert torch.isclose(loss, expected)


def test_soft_gradient_tends_to_half_the_squared_distance_of_centred_logits_when_temperature_is_high() -> (
    None
):
    # Hinton et al., section 2.1: with T^2 the gradient tends to (z - v) / (N classes) for centred logits.
    student, teacher = _logits(2).requires_grad_(), _logits(3)
    loss = soft_target_loss(
        student, teacher, torch.zeros(6, dtype=torch.long), temperature=1e4, soft_weight=1
    )
    (gradient,) = torch.autograd.grad(loss, student)
    z, v = (x - x.mean(1, keepdim=True) for x in (student.detach(), teacher))
    assert torch.allclose(gradient, (z - v) / (6 * 5), rtol=1e-3, atol=1e-6)


def test_soft_target_loss_sends_no_gradient_into_the_teacher() -> None:
    student, teacher = _logits(4).requires_grad_(), _logits(5).requires_grad_()
    soft_target_loss(
        student, teacher, torch.zeros(6, dtype=torch.long), temperature=2, soft_weight=0.5
    ).backward()
    assert teacher.grad is None
    assert student.grad is not None
