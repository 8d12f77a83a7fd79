from __future__ import annotations

import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.tensors import to_tensor
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.losses.settings import LabelsSettings, SoftTargetsSettings
from pipeline.distill.settings import DistillationSettings, EpochRecord, TrainingSettings
from pipeline.distill.targets import LiveTargets, StoredTargets, targets_for
from pipeline.distill.training import (
    accuracy,
    fit,
    learning_rate_at,
    predict_logits,
)
from pipeline.errors import DataError
from pipeline.tasks import Regression


def _split(count: int, seed: int) -> Split:
    """Two classes of 6x6 images: bright left half, bright right half, with noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = generator.integers(0, 120, (count, 6, 6, 1), dtype=np.uint8)
    images[labels == 0, :, :3] += 100
    images[labels == 1, :, 3:] += 100
    return Split(images, labels)


@pytest.fixture(name="dataset")
def _dataset() -> Dataset:
    splits = [_split(65, 0), _split(32, 1), _split(32, 2)]
    return Dataset("halves", *splits, ("left", "right"), Preprocessing((0.4,), (0.3,)), "digest")


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )


class _Teacher:
    """Knows the answer: compares the halves."""

    module = nn.Identity()

    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        difference = images[..., :3].mean((1, 2, 3)) - images[..., 3:].mean((1, 2, 3))
        return torch.stack([difference, -difference], 1)[None] * 4


SETTINGS = TrainingSettings(epochs=4, batch_size=16, learning_rate=0.02, patience=4)
SOFT = DistillationSettings(**dict(SETTINGS), loss=(SoftTargetsSettings(),))


def _weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def _equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_fit_learns_and_leaves_the_model_in_eval_mode_with_its_best_weights(dataset: Dataset) -> None:
    model = _network()
    result = fit(model, dataset, SETTINGS, seed=0)
    assert not model.training
    assert result.best_validation_accuracy > 0.9
    assert accuracy(model, dataset.validation, dataset.preprocessing) == result.best_validation_accuracy
    assert result.best_validation_accuracy == max(r.validation_accuracy for r in result.history)


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_fit_gives_the_same_weights_when_the_seed_is_the_same(dataset: Dataset, augment: str) -> None:
    settings = SETTINGS.model_copy(update={"augment": augment})
    runs = []
    for seed in (7, 7, 8):
        model = _network()
        fit(model, dataset, settings, seed=seed)
        runs.append(_weights(model))
    assert _equal(runs[0], runs[1])
    assert not _equal(runs[0], runs[2])


def test_fit_resumed_from_a_checkpoint_gives_the_weights_of_an_uninterrupted_run(
    dataset: Dataset, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"augment": "crop", "epochs": 5, "patience": 5})
    whole = _network()
    expected = fit(whole, dataset, settings, seed=1)

    class Killed(Exception):
        pass

    def kill(done: int, total: int, record: EpochRecord) -> None:
        if done == 2:
            raise Killed

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(_network(), dataset, settings, seed=1, checkpoint=checkpoint, on_epoch=kill)
    resumed = _network(seed=99)
    seen: list[int] = []
    result = fit(
        resumed, dataset, settings, seed=1, checkpoint=checkpoint, on_epoch=lambda d, t, r: seen.append(d)
    )
    assert seen == [3, 4, 5]
    assert result == expected
    assert _equal(_weights(resumed), _weights(whole))


def _with_dropout(seed: int = 0) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.2), _network(seed))


def test_fit_resumed_drops_what_an_uninterrupted_run_drops(dataset: Dataset, tmp_path: Path) -> None:
    whole = _with_dropout()
    expected = fit(whole, dataset, SETTINGS, seed=1)

    def kill(done: int, total: int, record: EpochRecord) -> None:
        if done == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(_with_dropout(), dataset, SETTINGS, seed=1, checkpoint=checkpoint, on_epoch=kill)
    resumed = _with_dropout(seed=99)
    assert fit(resumed, dataset, SETTINGS, seed=1, checkpoint=checkpoint) == expected
    assert _equal(_weights(resumed), _weights(whole))


def test_dropout_follows_from_the_seed_whoever_prepares_batches(dataset: Dataset) -> None:
    runs = []
    for workers in (0, 2):
        model = _with_dropout()
        torch.manual_seed(workers)
        fit(model, dataset, SETTINGS.model_copy(update={"epochs": 1, "workers": workers}), seed=7)
        runs.append(_weights(model))
        assert torch.equal(torch.rand(3), torch.manual_seed(workers) and torch.rand(3))
    assert _equal(*runs)


def test_fit_in_fp16_goes_on_with_the_scale_of_gradients_that_it_had(
    dataset: Dataset, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    settings = SETTINGS.model_copy(update={"epochs": 1, "precision": "fp16"})
    fit(_network(), dataset, settings, seed=1, checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"]["scale"] > 1
    state["step"]["scale"] = 128.0
    torch.save(state, checkpoint)
    more = settings.model_copy(update={"epochs": 2})
    fit(_network(), dataset, more, seed=1, checkpoint=checkpoint)
    assert torch.load(checkpoint, weights_only=True)["step"]["scale"] == 128


def test_fit_stops_early_when_validation_has_not_risen_for_patience_epochs(dataset: Dataset) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 50, "patience": 2})
    result = fit(_network(), dataset, settings, seed=0)
    assert len(result.history) == result.best_epoch + 3 < 50


def test_fit_raises_when_the_loss_is_not_finite(dataset: Dataset) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e20})
    with pytest.raises(TrainingDiverged, match="loss became"):
        fit(_network(), dataset, settings, seed=0)


def test_stored_targets_hold_no_batch_beside_their_own_copy(dataset: Dataset) -> None:
    large = replace(dataset, train=_split(600, 0))
    given: list[weakref.ref[torch.Tensor]] = []

    class Watched(_Teacher):
        def member_logits(self, images: torch.Tensor) -> torch.Tensor:
            assert [each() for each in given[:-1]] == [None] * len(given[:-1])
            logits = super().member_logits(images)
            given.append(weakref.ref(logits))
            return logits

    stored = StoredTargets(Watched(), large.train, large.preprocessing)
    assert len(given) > 2
    index = torch.tensor([599, 0, 300])
    images = to_tensor(large.train.images[index.numpy()], large.preprocessing)
    assert torch.equal(stored(images, index), _Teacher().member_logits(images))


def test_stored_and_live_targets_give_the_same_student_when_images_are_not_augmented(
    dataset: Dataset,
) -> None:
    settings = SOFT
    students = []
    for targets in (
        LiveTargets(_Teacher()),
        StoredTargets(_Teacher(), dataset.train, dataset.preprocessing),
    ):
        model = _network()
        fit(model, dataset, settings, seed=0, targets=targets)
        students.append(predict_logits(model, dataset.test, dataset.preprocessing))
    assert torch.allclose(students[0], students[1], atol=1e-4)


def test_distillation_alone_teaches_the_student_when_it_sees_no_label(dataset: Dataset) -> None:
    generator = np.random.default_rng(0)
    wrong = Split(dataset.train.images, generator.integers(0, 2, len(dataset.train)))
    unlabelled = Dataset(
        "unlabelled", wrong, dataset.validation, dataset.test, dataset.classes, dataset.preprocessing, "d"
    )
    model = _network()
    settings = SOFT.model_copy(update={"epochs": 8, "patience": 8})
    fit(model, unlabelled, settings, seed=0, targets=LiveTargets(_Teacher()))
    assert accuracy(model, dataset.test, dataset.preprocessing) > 0.9


def test_learning_rate_rises_to_its_peak_then_falls_to_zero() -> None:
    settings = TrainingSettings(learning_rate=0.1, warmup_share=0.1)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert math.isclose(rates[9], 0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_training_uses_the_threads_that_it_is_given_and_gives_them_back(dataset: Dataset) -> None:
    before, seen = torch.get_num_threads(), []
    settings = SETTINGS.model_copy(update={"threads": before + 1, "epochs": 1})
    fit(_network(), dataset, settings, seed=0, on_epoch=lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


class _Recorder(_Teacher):
    """Remembers what it is asked about."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.clone())
        return super().member_logits(images)


def test_the_teacher_sees_the_very_images_that_the_student_sees(dataset: Dataset) -> None:
    model, teacher, seen = _network(), _Recorder(), list[torch.Tensor]()
    model.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].clone()) if module.training else None
    )
    settings = DistillationSettings(
        epochs=1,
        batch_size=16,
        augment="resized-crop",
        colour=0.3,
        rand_augment=(1, 5),
        mixup=0.4,
        cutmix=1.0,
        loss=(LabelsSettings(weight=0.1), SoftTargetsSettings()),
    )
    targets = targets_for(teacher, dataset, settings)
    assert isinstance(targets, LiveTargets)
    fit(model, dataset, settings, seed=0, targets=targets)
    assert len(seen) == len(teacher.seen) == 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen, teacher.seen, strict=True))


@pytest.mark.parametrize(
    "changes", [{"colour": 0.1}, {"mixup": 0.1}, {"cutmix": 0.1}, {"rand_augment": (1, 1)}]
)
def test_logits_are_stored_only_where_images_never_change(dataset: Dataset, changes: dict[str, Any]) -> None:
    plain = DistillationSettings(loss=(SoftTargetsSettings(),))
    assert isinstance(targets_for(_Teacher(), dataset, plain), StoredTargets)
    assert isinstance(targets_for(_Teacher(), dataset, plain.model_copy(update=changes)), LiveTargets)


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_there_must_be_classes_to_balance(dataset: Dataset, balance: str) -> None:
    labels = np.zeros((65, 2), np.float32)
    numbers = replace(dataset, train=Split(dataset.train.images, labels, Regression((0.0,) * 2, (1.0,) * 2)))
    with pytest.raises(DataError, match="needs classes"):
        fit(_network(), numbers, SETTINGS.model_copy(update={"balance": balance}), seed=0)


@pytest.mark.parametrize("changes", [{"balance": "weights"}, {"balance": "sampler"}, {"precision": "bf16"}])
def test_a_training_with_more_settings_learns_too(dataset: Dataset, changes: dict[str, Any]) -> None:
    result = fit(_network(), dataset, SETTINGS.model_copy(update=changes), seed=0)
    assert result.best_validation_accuracy > 0.9
