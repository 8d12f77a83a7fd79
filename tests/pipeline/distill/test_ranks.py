"""Trainings by two real processes, which average their gradients by gloo."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.store import mapped
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.losses.settings import FitNetSettings, LabelsSettings, SoftTargetsSettings
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.distill.targets import LiveTargets
from pipeline.distill.training import fit
from pipeline.errors import VerificationError

pytestmark = pytest.mark.slow


class Teacher:
    """Compares the halves of an image."""

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(108, 2))

    def member_logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.module(images)[None]  # type: ignore[no-any-return]


class Deadly(nn.Linear):
    """Ends the process that it is trained in."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.fixture(name="dataset")
def _dataset(tmp_path: Path) -> Dataset:
    generator = np.random.default_rng(0)

    def split(name: str, count: int) -> Split:
        labels = np.arange(count) % 2
        images = generator.integers(0, 120, (count, 6, 6, 1), np.uint8)
        images[labels == 0, :, :3] += 100
        images.tofile(tmp_path / name)
        return Split(mapped(tmp_path / name, count, (6, 6, 1)), labels)

    splits = [split(name, count) for name, count in (("train", 67), ("validation", 32), ("test", 8))]
    return Dataset("halves", *splits, ("left", "right"), Preprocessing((0.4,), (0.3,)), "digest")


def settings(processes: int, **changes: Any) -> DistillationSettings:
    losses = (LabelsSettings(weight=0.2), SoftTargetsSettings(), FitNetSettings(weight=0.1))
    given: dict[str, Any] = {"epochs": 3, "batch_size": 16, "patience": 3, "augment": "crop", "loss": losses}
    return DistillationSettings(**given | {"processes": processes} | changes)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def test_two_processes_take_the_steps_of_one(dataset: Dataset, tmp_path: Path) -> None:
    """Connectors of losses included; 67 images leave a last batch of three, too few for two processes."""
    one, two, records = network(), network(), list[EpochRecord]()
    expected = fit(one, dataset, settings(1, batch_size=22), seed=3, targets=LiveTargets(Teacher()))
    found = fit(
        two,
        dataset,
        settings(2, batch_size=22),
        seed=3,
        targets=LiveTargets(Teacher()),
        checkpoint=tmp_path / "checkpoint.pt",
        on_epoch=lambda done, total, record: records.append(record),
    )
    assert torch.allclose(weights(one), weights(two), atol=1e-4)
    assert tuple(records) == found.history
    for ours, theirs in zip(expected.history, found.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.validation_accuracy == theirs.validation_accuracy
    assert not two.training
    # What is finished is not trained again, and a checkpoint of two goes on with one.
    again = network()
    fit(
        again,
        dataset,
        settings(1, batch_size=22),
        seed=3,
        checkpoint=tmp_path / "checkpoint.pt",
        targets=LiveTargets(Teacher()),
    )
    assert torch.equal(weights(again), weights(two))


def test_a_process_that_is_killed_ends_the_training_with_the_way_on(dataset: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), Deadly(36, 2))
    with pytest.raises(VerificationError, match="ended from outside") as caught:
        fit(model, dataset, settings(2, loss=(LabelsSettings(),)), seed=0)
    assert "continues from its last epoch" in caught.value.fix


def test_a_training_that_diverges_says_so(dataset: Dataset) -> None:
    with pytest.raises(TrainingDiverged, match=r"loss became (nan|inf)"):
        fit(
            network(),
            dataset,
            settings(2, loss=(LabelsSettings(),), learning_rate=100, momentum=0.99),
            seed=0,
        )


def test_a_network_that_cannot_be_sent_is_refused(dataset: Dataset) -> None:
    model = network()
    model.register_forward_pre_hook(lambda module, given: None)
    with pytest.raises(VerificationError, match="cannot be shared out"):
        fit(model, dataset, settings(2, loss=(LabelsSettings(),)), seed=0)


def test_a_batch_must_have_two_images_for_each_process() -> None:
    with pytest.raises(ValueError, match="set batch_size to 6"):
        DistillationSettings(batch_size=5, processes=3)
