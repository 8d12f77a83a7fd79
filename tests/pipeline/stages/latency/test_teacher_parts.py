from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.data.base import Preprocessing
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.stages.latency.teacher_parts import teacher_modules
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.resnet import resnet_cifar
from pipeline.teachers.teacher import AdaptedNetwork, Member, Teacher

PREPROCESSING = Preprocessing((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))


def _adapted(network: nn.Module) -> AdaptedNetwork:
    config = TeacherConfig(
        kind="factory", factory="a:b", weights=Path("w.pt"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    return AdaptedNetwork(network, config, PREPROCESSING).eval()


def test_modules_are_the_outermost_with_images_and_the_shapes_they_have_there() -> None:
    parts = {
        name: shape
        for name, _, shape in teacher_modules(_adapted(ConvNet(3, 5, width=4, depth=1)), (3, 16, 16))
    }
    assert parts == {
        "network.stem": (3, 16, 16),
        "network.blocks": (4, 16, 16),
    }


def test_modules_run_one_after_the_other_as_in_the_teacher() -> None:
    torch.manual_seed(0)
    parts = {name: module for name, module, _ in teacher_modules(_adapted(resnet_cifar(8)), (3, 32, 32))}
    assert list(parts) == [f"network.{name}" for name in ("conv1", "bn1", "layer1", "layer2", "layer3")]


def test_modules_of_an_ensemble_are_its_members() -> None:
    members = [Member(str(n), _adapted(ConvNet(3, 5, width=4, depth=1)), str(n)) for n in range(2)]
    parts = [name for name, _, _ in teacher_modules(Teacher(members).module, (3, 8, 8))]
    assert parts == ["networks.0", "networks.1"]


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
@pytest.mark.parametrize("fmt", Format, ids=str)
def test_a_teacher_with_its_own_normalisation_can_be_exported(fmt: Format, tmp_path: Path) -> None:
    exported = export_modules({"teacher": (_adapted(resnet_cifar(8)), (3, 32, 32))}, fmt, tmp_path)
    assert isinstance(exported["teacher"], Path)
