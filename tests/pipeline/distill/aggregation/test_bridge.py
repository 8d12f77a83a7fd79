from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.aggregation.bridge import Bridge
from pipeline.distill.feature_groups import LayerGroup
from pipeline.distill.feature_maps import FeatureMap

GROUP = LayerGroup(
    FeatureMap("front", 3, 4, 4),
    (FeatureMap("a", 5, 4, 4, mean=0.5, std=2.0), FeatureMap("b", 5, 4, 4, mean=-0.5, std=0.5)),
)


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv2d(1, 3, 3, padding=1)
        self.rest = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.front(images))


@pytest.fixture(name="images")
def _images() -> Tensor:
    return torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


FEATURES = {
    name: torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate("ab")
}
LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


def _made(*, crosses: bool = True) -> tuple[Student, Bridge]:
    torch.manual_seed(0)
    bridge = Bridge(GROUP, crosses=crosses)
    with torch.no_grad():
        bridge.beta.copy_(torch.tensor([0.7, -0.4]))
    return Student(), bridge


def test_both_paths_equal_their_formulas_written_out(images: Tensor) -> None:
    student, bridge = _made()
    paths = bridge(student, FEATURES, images, LABELS)
    first, second = torch.softmax(torch.tensor([0.7, -0.4]), 0)
    mixture = first * (FEATURES["a"] - 0.5) / 2 + second * (FEATURES["b"] + 0.5) / 0.5
    crossed = student.rest(bridge.connectors["to_student"](mixture))
    assert torch.allclose(paths.teacher_to_student, functional.cross_entropy(crossed, LABELS))
    ours = bridge.connectors["to_teacher"](student.front(images))
    assert torch.allclose(paths.student_to_teacher, (ours - mixture).square().mean(), rtol=1e-5)


def test_without_crossing_the_student_is_trained_as_it_is(images: Tensor) -> None:
    student, bridge = _made(crosses=False)
    paths = bridge(student, FEATURES, images, LABELS)
    assert torch.allclose(paths.teacher_to_student, functional.cross_entropy(student(images), LABELS))
    paths.teacher_to_student.backward()
    # The loss of the labels says nothing of the mixture.
    assert bridge.beta.grad is None


def test_no_weight_learns_from_both_paths(images: Tensor) -> None:
    student, bridge = _made()
    weights = {**dict(student.named_parameters()), **dict(bridge.connectors.named_parameters())}
    paths = bridge(student, FEATURES, images, LABELS)

    def learns(part: Tensor) -> set[str]:
        found = torch.autograd.grad(part, [*weights.values()], retain_graph=True, allow_unused=True)
        return {name for name, gradient in zip(weights, found, strict=True) if gradient is not None}

    crossing, imitating = learns(paths.teacher_to_student), learns(paths.student_to_teacher)
    assert crossing == {"rest.2.weight", "rest.2.bias", "to_student.weight", "to_student.bias"}
    assert imitating == {"front.weight", "front.bias", "to_teacher.weight", "to_teacher.bias"}


def test_both_paths_reach_the_mixture_whose_shares_sum_to_one(images: Tensor) -> None:
    student, bridge = _made()
    for part in bridge(student, FEATURES, images, LABELS):
        (gradient,) = torch.autograd.grad(part, bridge.beta, retain_graph=True)
        assert gradient.abs().min() > 0
        # A softmax does not change when all its logits rise alike.
        assert float(gradient.sum()) == pytest.approx(0, abs=1e-6)
    assert float(bridge.shares().sum().detach()) == pytest.approx(1)


def test_the_student_is_left_without_hooks_also_when_it_fails(images: Tensor) -> None:
    student, bridge = _made()
    with pytest.raises(RuntimeError):
        bridge(student, FEATURES, images.expand(-1, 2, -1, -1), LABELS)
    assert not student.front._forward_hooks
