"""How a teacher's outputs are read for other tasks than one class for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.tensors import to_tensor
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import accuracy, fit
from pipeline.tasks import AnyTask, Embedding, MultiLabel, Regression
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.rebuilding import rebuild_layers
from pipeline.teachers.teacher import Teacher

RAW = Preprocessing((0.0,), (1.0,))
SHORT = TrainingSettings(epochs=12, batch_size=16)
TASK = Regression((100.0, -5.0), (20.0, 2.0))


class Halves(nn.Module):
    """A network whose last layer is linear, over what is bright in both halves of an image."""

    def __init__(
        self, outputs: int = 2, weight: float = 1.0, bias: float = 0.0, ending: str = "none"
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((1, 2))
        self.inner = nn.Linear(2, 8)
        self.head = nn.Linear(8, outputs)
        self.ending = {"none": nn.Identity(), "scaled": Scaled()}[ending]
        nn.init.normal_(self.head.weight, std=0.1)
        with torch.no_grad():
            self.head.weight.mul_(weight)
            self.head.bias.fill_(bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.ending(self.head(self.inner(self.pool(images).flatten(1)).relu()))


class Scaled(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        return 3 * numbers + 1


class Sums(nn.Module):
    """Two numbers of an image; ``ending`` is what they go through."""

    def __init__(self, ending: str = "none") -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.ending = {"none": nn.Identity(), "sigmoid": nn.Sigmoid()}[ending]

    def forward(self, images: Tensor) -> Tensor:
        halves = torch.stack([images[..., :2].sum((1, 2, 3)), images[..., 2:].sum((1, 2, 3))], dim=1)
        return self.ending(self.scale * (halves - 4))


def made(task: AnyTask, labels: np.ndarray, classes: tuple[str, ...]) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
    split = Split(images, labels, task)
    return Dataset("made", split, split, split, classes, RAW, "d")


def teacher_of(dataset: Dataset, folder: Path, arguments: Mapping[str, Any], told: list[str]) -> Teacher:
    torch.save(Sums().state_dict(), folder / "sums.pt")
    config = TeacherConfig(
        kind="factory",
        factory=f"{__name__}:Sums",
        arguments=dict(arguments),
        weights=folder / "sums.pt",
    )
    return load_teacher([config], dataset, folder=folder, seed=0, progress=lambda *_: None, tell=told.append)


def of_halves(task_of: Callable[[np.ndarray], tuple[AnyTask, np.ndarray]]) -> Dataset:
    """Images with two halves of different brightness, and what the task makes of the two in 0..1."""
    generator = np.random.default_rng(0)
    bright = generator.integers(0, 256, (192, 1, 2, 1), np.uint8)
    images = np.broadcast_to(bright.repeat(2, axis=2), (192, 4, 4, 1)).copy()
    task, labels = task_of(bright[:, 0, :, 0] / 255)
    splits = [Split(images[part], labels[part], task) for part in (slice(128), slice(128, None))]
    return Dataset("made", splits[0], splits[1], splits[1], ("a", "b"), Preprocessing((0.5,), (0.3,)), "d")


def numbers(mean: float, std: float) -> Dataset:
    def task_of(bright: np.ndarray) -> tuple[AnyTask, np.ndarray]:
        raw = mean + std * (bright - 0.5) / 0.29
        task = Regression.of(raw)
        return task, task.standardised(raw)

    return of_halves(task_of)


def trained(dataset: Dataset, folder: Path, **keys: Any) -> Teacher:
    config = TeacherConfig(kind="factory", factory=f"{__name__}:Halves", training=SHORT, **keys)
    return load_teacher([config], dataset, folder=folder, seed=0, progress=lambda *_: None)


def value_of(network: nn.Module, dataset: Dataset) -> float:
    return accuracy(network, dataset.validation, dataset.preprocessing)


UNITS = [(0.0, 1.0), (5000.0, 1000.0), (0.5, 0.01)]


@pytest.mark.parametrize(("mean", "std"), UNITS)
def test_a_network_with_new_weights_learns_numbers_in_every_unit(
    tmp_path: Path, mean: float, std: float
) -> None:
    dataset = numbers(mean, std)
    assert value_of(trained(dataset, tmp_path).module, dataset) > 0.9


@pytest.mark.parametrize("classes", [None, {"a": 1, "b": 0}])
@pytest.mark.parametrize(("mean", "std"), UNITS)
def test_a_network_with_weights_of_its_own_is_tuned_alike_in_every_unit(
    tmp_path: Path, mean: float, std: float, classes: dict[str, int] | None
) -> None:
    torch.manual_seed(0)
    torch.save(Halves(weight=std, bias=mean).state_dict(), tmp_path / "w.pt")
    dataset = numbers(mean, std)
    teacher = trained(dataset, tmp_path, weights=tmp_path / "w.pt", classes=classes)
    torch.manual_seed(0)
    torch.save(Halves().state_dict(), tmp_path / "w.pt")
    plain = numbers(0.0, 1.0)
    expected = trained(plain, tmp_path, weights=tmp_path / "w.pt", classes=classes)
    assert value_of(expected.module, plain) > 0.9
    assert value_of(teacher.module, dataset) == pytest.approx(value_of(expected.module, plain), abs=0.01)


@pytest.mark.parametrize(("mean", "std"), UNITS)
def test_what_begins_as_a_copy_of_a_finished_teacher_learns_in_every_unit(
    tmp_path: Path, mean: float, std: float
) -> None:
    torch.manual_seed(0)
    finished = Halves(weight=std, bias=mean).eval()
    torch.save(finished.state_dict(), tmp_path / "w.pt")
    dataset = numbers(mean, std)
    config = TeacherConfig(kind="factory", factory=f"{__name__}:Halves", weights=tmp_path / "w.pt")
    teacher = load_teacher([config], dataset, folder=tmp_path, seed=0, progress=lambda *_: None)
    images, task = to_tensor(dataset.test.images, dataset.preprocessing), dataset.task
    assert isinstance(task, Regression)
    expected = (finished(images) - torch.tensor(task.mean)) / torch.tensor(task.std)
    assert torch.allclose(teacher.module(images), expected, atol=1e-3)
    student = teacher.module.requires_grad_(True)
    fit(student, dataset, SHORT, seed=0)
    assert value_of(student, dataset) > 0.9


@pytest.mark.parametrize(("mean", "std"), UNITS)
def test_what_begins_as_the_layers_of_an_exported_teacher_learns_in_every_unit(
    tmp_path: Path, mean: float, std: float
) -> None:
    torch.manual_seed(0)
    dataset, shapes = numbers(mean, std), ({0: torch.export.Dim("batch", min=1)},)
    images = to_tensor(dataset.test.images, dataset.preprocessing)
    program = torch.export.export(Halves(weight=std, bias=mean).eval(), (images,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "t.pt2")
    config = TeacherConfig(kind="pt2", path=tmp_path / "t.pt2")
    teacher = load_teacher([config], dataset, folder=tmp_path, seed=0, progress=lambda *_: None)
    student, expected = teacher.module, teacher.module(images)
    rebuild_layers(student, images)
    assert torch.allclose(student(images), expected, atol=1e-3)
    fit(student.requires_grad_(True), dataset, SHORT, seed=0)
    assert value_of(student, dataset) > 0.9


def test_what_comes_behind_the_last_layer_leaves_it_as_it_is(tmp_path: Path) -> None:
    network = Halves(ending="scaled").eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    dataset = numbers(100.0, 20.0)
    config = TeacherConfig(
        kind="factory",
        factory=f"{__name__}:Halves",
        arguments={"ending": "scaled"},
        weights=tmp_path / "w.pt",
    )
    teacher = load_teacher([config], dataset, folder=tmp_path, seed=0, progress=lambda *_: None)
    images, task = to_tensor(dataset.test.images, dataset.preprocessing), dataset.task
    assert isinstance(task, Regression)
    expected = (network(images) - torch.tensor(task.mean)) / torch.tensor(task.std)
    assert torch.allclose(teacher.module(images), expected, atol=1e-5)


def test_new_weights_are_not_taken_for_probabilities_of_labels(tmp_path: Path) -> None:
    dataset = of_halves(lambda bright: (MultiLabel(), (bright > 0.5).astype(np.float32)))
    # All outputs lie within 0 and 1 at first.
    arguments = {"weight": 0.01, "bias": 0.5}
    teacher = trained(dataset, tmp_path, arguments=arguments)
    assert not teacher.members[0].network.gives_probabilities
    assert value_of(teacher.module, dataset) > 0.95


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[Sums.__module__])


def test_numbers_of_an_own_teacher_come_in_the_unit_of_the_labels(tmp_path: Path) -> None:
    dataset = made(TASK, np.zeros((8, 2), np.float32), ("a", "b"))
    images = to_tensor(dataset.test.images, RAW)
    found = teacher_of(dataset, tmp_path, {}, []).member_logits(images)[0]
    expected = (Sums()(images) - torch.tensor(TASK.mean)) / torch.tensor(TASK.std)
    assert torch.allclose(found, expected)


def test_sigmoids_of_labels_become_logits_again(tmp_path: Path) -> None:
    dataset = made(MultiLabel(), np.tile(np.float32([[0, 1], [1, 0]]), (4, 1)), ("a", "b"))
    images, told = to_tensor(dataset.test.images, RAW), list[str]()
    found = teacher_of(dataset, tmp_path, {"ending": "sigmoid"}, told).member_logits(images)[0]
    assert torch.allclose(found, Sums()(images), atol=1e-3)
    assert "gives probabilities, not logits; their logits are used" in told[0]


def test_vectors_may_have_another_size_than_there_are_classes(tmp_path: Path) -> None:
    dataset = made(Embedding(), np.arange(8) % 3, ("a", "b", "c"))
    images = to_tensor(dataset.test.images, RAW)
    assert torch.equal(teacher_of(dataset, tmp_path, {}, []).member_logits(images)[0], Sums()(images))
