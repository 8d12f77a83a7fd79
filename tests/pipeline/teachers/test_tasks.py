"""How a teacher's outputs are read for other tasks than one class for each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.tensors import to_tensor
from pipeline.tasks import AnyTask, Embedding, MultiLabel, Regression
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.teacher import Teacher

RAW = Preprocessing((0.0,), (1.0,))
TASK = Regression((100.0, -5.0), (20.0, 2.0))


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
