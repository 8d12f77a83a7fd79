from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.batches import Batch
from pipeline.distill.losses.settings import (
    AttentionTransferSettings,
    BlockwiseSettings,
    DecoupledKdSettings,
    FeatureAggregationSettings,
    FitNetSettings,
    LabelsSettings,
    LossSettings,
    SimilarityPreservingSettings,
    SoftTargetsSettings,
)
from pipeline.distill.objective import Objective
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.distill.step import TrainingStep
from pipeline.distill.targets import LiveTargets, StoredTargets, targets_for
from pipeline.distill.training import fit
from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet

EVERY_LOSS = (
    LabelsSettings(weight=0.1),
    SoftTargetsSettings(weight=0.5),
    DecoupledKdSettings(weight=0.5),
    FitNetSettings(),
    BlockwiseSettings(),
    AttentionTransferSettings(weight=100),
    SimilarityPreservingSettings(),
    FeatureAggregationSettings(mixture="random"),
)


class _Teacher:
    def __init__(self, network: nn.Module) -> None:
        self.module = network.eval().requires_grad_(False)

    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.module(images)[None]


def _networks() -> tuple[nn.Module, _Teacher]:
    torch.manual_seed(0)
    return ConvNet(1, 2, width=4, depth=1), _Teacher(ConvNet(1, 2, width=6, depth=1))


@pytest.fixture(name="dataset")
def _dataset() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (34, 8, 8, 1), dtype=np.uint8)
    split = Split(images, np.arange(34, dtype=np.int64) % 2)
    return Dataset("noise", split, split, split, ("a", "b"), Preprocessing((0.5,), (0.3,)), "digest")


def test_the_objective_is_the_weighted_sum_of_its_losses() -> None:
    student, teacher = _networks()
    images, index, labels = torch.randn(4, 1, 8, 8), torch.arange(4), torch.tensor([0, 1, 0, 1])

    def value(*losses: LossSettings) -> torch.Tensor:
        objective = Objective(losses, LiveTargets(teacher))
        with objective.watching(student, images, seed=3):
            return objective(student(images), objective.members(images, index), labels)

    student.eval()
    weights = [each.weight for each in EVERY_LOSS]
    terms = [value(each.model_copy(update={"weight": 1.0})) for each in EVERY_LOSS]
    total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    assert torch.allclose(value(*EVERY_LOSS), torch.as_tensor(total), rtol=1e-4)


def test_with_bf16_the_teacher_computes_in_it_too_and_every_loss_in_float32() -> None:
    student, teacher = _networks()
    types = []
    teacher.module.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    images, index, labels = torch.randn(8, 1, 8, 8), torch.arange(8), torch.arange(8) % 2
    objective = Objective(EVERY_LOSS, LiveTargets(teacher))
    before = [each.detach().clone() for each in student.parameters()]
    with objective.watching(student, images, seed=0):
        optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.01)
        step = TrainingStep(
            student,
            objective,
            optimizer,
            device=torch.device("cpu"),
            precision="bf16",
            tell=lambda line: None,
        )
        assert math.isfinite(step(Batch(images, index, labels), 0.01))
    assert types[-1] == torch.bfloat16
    for each, old in zip(student.parameters(), before, strict=True):
        assert each.dtype == torch.float32
        assert not torch.equal(each, old)


def test_without_a_teacher_the_labels_alone_are_learnt() -> None:
    objective = Objective(EVERY_LOSS, None)
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    value = objective(logits, objective.members(torch.zeros(4, 1, 8, 8), torch.arange(4)), labels)
    assert torch.equal(value, nn.functional.cross_entropy(logits, labels))


def test_a_training_with_connectors_resumed_equals_one_that_was_not_interrupted(
    dataset: Dataset, tmp_path: Path
) -> None:
    settings = DistillationSettings(epochs=3, batch_size=16, learning_rate=0.01, patience=3, loss=EVERY_LOSS)

    def train(checkpoint: Path, stop_after: int | None = None) -> nn.Module:
        student, teacher = _networks()

        def stop(done: int, total: int, record: EpochRecord) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        targets = targets_for(teacher, dataset, settings)
        fit(student, dataset, settings, seed=0, targets=targets, checkpoint=checkpoint, on_epoch=stop)
        return student

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", stop_after=1)
    resumed = train(tmp_path / "resumed")
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    names = torch.load(tmp_path / "whole", weights_only=True)["objective"]
    assert any("_connectors" in name for name in names)


@pytest.mark.parametrize(
    ("loss", "augment", "kind"),
    [
        ((LabelsSettings(),), "crop", type(None)),
        ((SoftTargetsSettings(),), "none", StoredTargets),
        ((SoftTargetsSettings(),), "crop", LiveTargets),
        ((LabelsSettings(), FitNetSettings()), "none", LiveTargets),
    ],
)
def test_the_teacher_runs_only_where_it_is_needed(
    dataset: Dataset, loss: tuple[LossSettings, ...], augment: str, kind: type
) -> None:
    settings = DistillationSettings(loss=loss, augment=augment)
    assert type(targets_for(_networks()[1], dataset, settings)) is kind


def test_a_teacher_without_feature_maps_is_refused_with_what_to_do() -> None:
    student, _ = _networks()
    teacher = _Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    objective = Objective([FitNetSettings()], LiveTargets(teacher))
    watching = objective.watching(student, torch.zeros(2, 1, 8, 8), seed=0)
    with pytest.raises(TeacherError, match="no feature maps of the same size") as caught, watching:
        pass
    assert "soft_targets" in caught.value.fix
