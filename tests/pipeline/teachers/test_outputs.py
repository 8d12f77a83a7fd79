from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.data import Dataset
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import TeacherError
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.outputs import giving_logits
from pipeline.teachers.teacher import Teacher

SHORT = TrainingSettings(epochs=2, batch_size=16)


@dataclass
class Output:
    logits: torch.Tensor


class Odd(nn.Module):
    """Gives its logits in one of the ways in which networks do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = ConvNet(1, 3, width=2, depth=1), kind

    def forward(self, images: torch.Tensor) -> Any:
        logits = self.net(images)
        return {
            "plain": logits,
            "tuple": (logits, -logits),
            "dict": {"loss": torch.zeros(()), "features": images, "logits": logits},
            "other names": {"loss": torch.zeros(()), "features": images.flatten(1), "head": logits},
            "object": Output(logits=logits),
            "features first": (images.flatten(1), logits),
            "pooled": logits[:, :, None, None],
            "half": logits.half(),
            "probabilities": logits.softmax(1),
            "nothing": None,
            "more": torch.cat([logits, logits], 1),
            "auxiliary": (logits, -logits) if self.training else logits,
            "loss in training": {"loss": torch.zeros(())} if self.training else logits,
        }[self.kind]


def make(kind: str) -> nn.Module:
    return Odd(kind)


def _load(kind: str, dataset: Dataset, folder: Path, tell: Any = print, **keys: Any) -> Teacher:
    torch.manual_seed(0)
    torch.save(Odd("plain").state_dict(), folder / "w.pt")
    config = TeacherConfig(
        kind="factory",
        factory=f"{make.__module__}:make",
        arguments={"kind": kind},
        weights=folder / "w.pt",
        **keys,
    )
    return load_teacher([config], dataset, folder=folder, seed=0, progress=lambda *_: None, tell=tell)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("tuple", "number 0, counted from 0, of the 2 outputs"),
        ("features first", "number 1, counted from 0, of the 2 outputs"),
        ("dict", "'logits' of the 2 outputs"),
        ("other names", "'head' of the 2 outputs"),
        ("object", "'logits' of the 1 outputs"),
        ("pooled", None),
    ],
)
def test_logits_are_found_in_what_a_network_gives_and_told(
    kind: str, said: str | None, dataset: Dataset, tmp_path: Path
) -> None:
    told: list[str] = []
    images = torch.rand(4, 1, 8, 8)
    plain = _load("plain", dataset, tmp_path).module(images)
    assert torch.equal(_load(kind, dataset, tmp_path, told.append).module(images), plain)
    assert told == ([] if said is None else [f"teacher      'make': {said} is taken as logits"])


def test_logits_are_found_beside_what_is_given_in_training_alone(dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    plain = _load("plain", dataset, tmp_path, training=SHORT)
    teacher = _load("auxiliary", dataset, tmp_path, told.append, training=SHORT)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(teacher.module(images), plain.module(images))
    where = "number 0, counted from 0, of the 2 outputs"
    assert told == [f"teacher      'make': in training, {where} is taken as logits"]


def test_a_student_may_be_trained_from_a_finished_teacher_with_auxiliary_outputs(
    dataset: Dataset, tmp_path: Path
) -> None:
    module = _load("auxiliary", dataset, tmp_path).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert module.train()(torch.rand(4, 1, 8, 8)).shape == (4, 3)
    again = _load("auxiliary", dataset, tmp_path).module.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.items())


def test_a_network_that_gives_no_logits_in_training_is_not_trained(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="'make' gives no logits in training mode") as caught:
        _load("loss in training", dataset, tmp_path, training=SHORT)
    assert "first in a tuple" in caught.value.fix
    assert _load("loss in training", dataset, tmp_path).module(torch.rand(4, 1, 8, 8)).shape == (4, 3)


def test_logits_of_half_precision_become_single(dataset: Dataset, tmp_path: Path) -> None:
    assert _load("half", dataset, tmp_path).module(torch.rand(4, 1, 8, 8)).dtype == torch.float32


def test_probabilities_are_told_and_become_logits(dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    images = torch.rand(4, 1, 8, 8)
    logits = _load("probabilities", dataset, tmp_path, told.append).module(images)
    assert len(told) == 1
    assert "gives probabilities, not logits" in told[0]
    plain = _load("plain", dataset, tmp_path, told.append).module(images)
    assert torch.allclose(logits.softmax(1), plain.softmax(1), atol=1e-5)
    assert len(told) == 1


@pytest.mark.parametrize(("kind", "said"), [("nothing", "NoneType"), ("more", "6 outputs")])
def test_what_holds_no_logits_of_the_classes_is_refused(
    kind: str, said: str, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError) as caught:
        _load(kind, dataset, tmp_path)
    assert said in f"{caught.value} {caught.value.why}"


@pytest.mark.parametrize("several_labels", [False, True])
def test_what_gives_probabilities_gives_logits_of_the_same_probabilities(several_labels: bool) -> None:
    torch.manual_seed(0)
    net, images = ConvNet(1, 3, width=2, depth=1).eval(), torch.randn(5, 1, 8, 8)
    to_probabilities = nn.Sigmoid() if several_labels else nn.Softmax(dim=1)
    ending = nn.Sequential(net, to_probabilities)
    with torch.no_grad():
        assert giving_logits(net, images, several_labels) is net
        logits = giving_logits(ending, images, several_labels)(images)
        assert torch.allclose(to_probabilities(logits), ending(images), atol=1e-6)
        if several_labels:
            assert torch.allclose(logits, net(images), atol=1e-4)
