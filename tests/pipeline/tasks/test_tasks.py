"""What every task keeps, and what each of them is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.tasks import Embedding, MultiLabel, Regression, SingleLabel, Task, WeightedClasses

TASKS = (SingleLabel(), MultiLabel(), Regression((3.0, 5.0, -1.0), (2.0, 1.0, 0.5)), Embedding())


def made_up(task: Task, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that are perfect, and the labels."""
    generator = np.random.default_rng(0)
    if task.kind in ("single-label", "embedding"):
        labels = np.arange(count) % 3
        return np.eye(3, dtype=np.float32)[labels] + 0.01, labels
    labels = (generator.random((count, 3)) < 0.5).astype(np.float32)
    return labels, labels


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_perfect_outputs_get_1_and_random_ones_no_more_than_chance(task: Task) -> None:
    outputs, labels = made_up(task)
    assert task.value(outputs, labels) == pytest.approx(1)
    chance = task.chance(labels)
    assert task.better_than_chance(1.0, len(labels), chance)
    assert not task.better_than_chance(chance, len(labels), chance)
    generator = np.random.default_rng(1)
    drawn = [
        task.value(generator.standard_normal(outputs.shape).astype(np.float32), labels) for _ in range(20)
    ]
    assert sum(task.better_than_chance(each, len(labels), chance) for each in drawn) <= 4


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_counts_are_the_metric_where_it_counts_images(task: Task) -> None:
    outputs, labels = made_up(task)
    outputs = outputs + np.random.default_rng(2).standard_normal(outputs.shape).astype(np.float32)
    counts = task.counts(outputs, labels)
    if task.kind in ("multi-label", "regression"):
        assert counts is None
        assert task.spread(0.5, 100) is None
    else:
        assert counts is not None
        assert counts[0].sum() / counts[1].sum() == pytest.approx(task.value(outputs, labels))
        assert task.spread(0.5, 100) == pytest.approx(0.05)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(task: Task) -> None:
    teacher = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    same = teacher.clone().requires_grad_()
    loss = task.teacher_loss(same, teacher[None], 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-6
    assert task.teacher_loss(teacher.flip(0), teacher[None], 2.0) > 0.01


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_outputs_agree_with_themselves_and_less_with_others(task: Task) -> None:
    outputs = np.random.default_rng(3).standard_normal((50, 3)).astype(np.float32)
    assert task.agreement(outputs, outputs) == pytest.approx(1)
    assert task.agreement(outputs + 1e-5, outputs) > 0.99
    assert task.agreement(outputs[::-1], outputs) < 0.9
    assert "float" in task.agreement_shown(0.5)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_answers_are_drawn_from_what_the_outputs_say(task: Task) -> None:
    """A score function has mean 0 where the drawn answers have the distribution that is scored."""
    outputs = torch.tensor([[0.5, -1.0, 2.0]]).repeat(4000, 1).requires_grad_()
    loss = task.sampled_loss(outputs, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, outputs)
    mean, spread = gradient.mean(dim=0), gradient.std(dim=0) / 4000**0.5
    assert (mean.abs() < 4 * spread + 1e-9).all()
    assert gradient.abs().max() > 0
    again = task.sampled_loss(outputs, torch.Generator().manual_seed(0))
    assert torch.equal(loss, again)


def test_losses_of_labels() -> None:
    outputs = torch.tensor([[2.0, -1.0, 0.5]])
    assert SingleLabel().label_loss(outputs, torch.tensor([1])) == pytest.approx(
        -outputs.log_softmax(1)[0, 1].item()
    )
    mixed = torch.tensor([[0.25, 0.75, 0.0]])
    one, other = (SingleLabel().label_loss(outputs, torch.tensor([label])) for label in (0, 1))
    assert SingleLabel().label_loss(outputs, mixed) == pytest.approx((0.25 * one + 0.75 * other).item())
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    expected = functional.binary_cross_entropy(outputs.sigmoid(), labels)
    assert MultiLabel().label_loss(outputs, labels) == pytest.approx(expected.item())
    assert TASKS[2].label_loss(outputs, labels) == pytest.approx(((outputs - labels) ** 2).mean().item())
    with pytest.raises(ValueError, match="no embedding"):
        Embedding().label_loss(outputs, labels)


def test_the_labels_of_a_multi_label_teacher_are_learned_one_by_one() -> None:
    """The sum of two-class divergences, by the definition."""
    student, teacher, temperature = torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, 0.2]]), 3.0
    expected = 0.0
    for s, t in zip(student[0], teacher[0], strict=True):
        p = torch.stack([t, torch.tensor(0.0)]).div(temperature).softmax(0)
        q = torch.stack([s, torch.tensor(0.0)]).div(temperature).softmax(0)
        expected += float((p * (p / q).log()).sum()) * temperature**2
    found = MultiLabel().teacher_loss(student, teacher[None], temperature)
    assert found == pytest.approx(expected / 2, rel=1e-4)


def test_a_regression_is_in_units_of_its_labels_spread() -> None:
    labels = np.array([[10.0, 1.0], [20.0, 3.0], [30.0, 5.0]])
    task = Regression.of(labels)
    assert task.mean == (20.0, 3.0)
    found = task.standardised(labels)
    assert found.std(axis=0) == pytest.approx(1)
    assert found * np.array(task.std) + np.array(task.mean) == pytest.approx(labels, rel=1e-6)


def test_chance_of_an_embedding_is_naming_any_other_image() -> None:
    # Two of label 0 have 1 of 4 others, each of three of label 1 has 2 of 4; one alone is not asked.
    assert Embedding().chance(np.array([0, 0, 1, 1, 1])) == pytest.approx((2 * 1 + 3 * 2) / (5 * 4))


def test_a_metric_is_shown_by_its_name_unless_it_is_accuracy() -> None:
    assert [task.shown(0.5) for task in TASKS] == [
        "50.00%",
        "mean average precision 50.00%",
        "R2 50.00%",
        "retrieval@1 50.00%",
    ]


def test_weighted_classes_teach_all_classes_alike() -> None:
    labels = torch.tensor([0] * 9 + [1])
    task = WeightedClasses(weights=(10 / 18, 10 / 2))
    outputs = torch.zeros(10, 2, requires_grad=True)
    loss = task.label_loss(outputs, labels)
    assert loss.item() == pytest.approx(np.log(2))
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.sum(dim=0).abs().max() < 1e-6
    probabilities = functional.one_hot(labels).float()
    assert task.label_loss(outputs, probabilities).item() == pytest.approx(loss.item())
