from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data import Dataset
from pipeline.data.base import Preprocessing, Split
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import TeacherError
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.ensemble import SATURATED_BELOW, EnsembleFigures, figures_of, joined_names
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.teacher import Member, Teacher
from pipeline.teachers.weights import weights_bytes

SHORT = TrainingSettings(epochs=1, batch_size=16)


class Says(nn.Module):
    """Names the class that is written into the first pixel of an image, plus ``shift`` where it is even."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        written = images[:, 0, 0, 0].round().long()
        named = (written + torch.where(written % 2 == 0, self.shift, 0)) % 4
        return nn.functional.one_hot(named, 4) * 5.0


def _dataset() -> Dataset:
    labels = np.arange(12, dtype=np.int64) % 4
    images = np.zeros((12, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = labels
    split = Split(images, labels)
    scale = Preprocessing((0.0,), (1 / 255,))
    return Dataset("written", split, split, split, ("a", "b", "c", "d"), scale, "d")


def _ensemble(*shifts: int) -> Teacher:
    return Teacher([Member(f"+{shift}", Says(shift), str(shift)) for shift in shifts])


def test_figures_count_images_on_which_members_differ() -> None:
    figures = figures_of(_ensemble(0, 0, 1), _dataset())
    assert figures == EnsembleFigures(
        agreement=pytest.approx((1 + 0.5 + 0.5) / 3),
        oracle_accuracy=1.0,
        all_right=0.5,
        mixed=0.5,
        none_right=0.0,
    )


def test_images_that_no_member_gets_right_are_told_apart() -> None:
    figures = figures_of(_ensemble(1, 2), _dataset())
    assert (figures.all_right, figures.mixed, figures.none_right) == (0.5, 0.0, 0.5)
    assert figures.oracle_accuracy == 0.5


def test_an_ensemble_without_dispute_is_saturated_and_says_so() -> None:
    figures = figures_of(_ensemble(0, 0), _dataset())
    assert figures.saturated
    assert "saturated" in " ".join(figures.lines())
    disputed = EnsembleFigures(0.9, 0.9, 0.8, SATURATED_BELOW, 0.1)
    assert "saturated" not in " ".join(disputed.lines())


def test_names_of_one_kind_are_counted() -> None:
    assert joined_names(["a", "a", "a", "b"]) == "3 x a + b"


def test_member_logits_are_those_of_each_member() -> None:
    images = torch.zeros(3, 1, 2, 2)
    images[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0])
    named = _ensemble(0, 1).member_logits(images).argmax(2)
    assert named.tolist() == [[0, 1, 2], [1, 1, 3]]


def _loaded(dataset: Dataset, folder: Path, *configs: TeacherConfig) -> Teacher:
    return load_teacher(configs, dataset, folder=folder, seed=0, progress=lambda *_: None)


def test_members_of_one_table_are_trained_from_seeds_of_their_own(dataset: Dataset, tmp_path: Path) -> None:
    small = TeacherConfig(width=2, depth=1, training=SHORT, members=3)
    teacher = _loaded(dataset, tmp_path, small)
    assert len({member.digest for member in teacher.members}) == 3
    tables = [small.model_copy(update={"members": 1})] * 3
    assert [m.digest for m in _loaded(dataset, tmp_path, *tables).members] == [
        m.digest for m in teacher.members
    ]


def test_a_larger_ensemble_keeps_the_members_that_were_trained(dataset: Dataset, tmp_path: Path) -> None:
    small = TeacherConfig(width=2, depth=1, training=SHORT, members=2)
    first = _loaded(dataset, tmp_path, small)
    more = _loaded(dataset, tmp_path, small.model_copy(update={"members": 3}))
    assert [m.digest for m in more.members[:2]] == [m.digest for m in first.members]


def test_several_members_of_given_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="would all be equal"):
        TeacherConfig(kind="pt2", path=Path("net.pt2"), members=2)


def _given(folder: Path, name: str, **arguments: Any) -> TeacherConfig:
    made = {"channels": 1, "classes": 3, "width": 2, "depth": 1} | arguments
    path = folder / f"{name}.safetensors"
    path.write_bytes(weights_bytes(ConvNet(**made)))
    factory = "pipeline.teachers.convnet:ConvNet"
    return TeacherConfig(kind="factory", factory=factory, arguments=made, weights=path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"classes": 7}, "has 7 outputs, but the data have 3 classes"),
        ({"channels": 3}, "does not take the data's images of 1x8x8"),
    ],
)
def test_a_member_of_other_classes_or_another_input_is_refused_by_name(
    dataset: Dataset, tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    fitting, other = _given(tmp_path, "fits"), _given(tmp_path, "other", **arguments)
    with pytest.raises(TeacherError, match=said):
        _loaded(dataset, tmp_path, fitting, other)
