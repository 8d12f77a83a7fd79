from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.base import Preprocessing, Split
from pipeline.data.store import mapped
from pipeline.distill.batches import Batch, Batches, class_weights
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import DataError, VerificationError

RAW = Preprocessing((0.5,), (0.5,))
EVERYTHING: dict[str, Any] = {
    "augment": "resized-crop",
    "colour": 0.4,
    "rand_augment": (2, 5),
    "mixup": 0.3,
    "cutmix": 1.0,
}


def split(count: int = 41, channels: int = 1) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 6, 9, channels), np.uint8)
    return Split(images, np.arange(count) % 3)


def batches(train: Split | None = None, seed: int = 0, **settings: Any) -> Batches:
    given = TrainingSettings(batch_size=8, **settings)
    return Batches(train or split(), RAW, given, seed, 3)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.index, b.index) and torch.equal(a.labels, b.labels)
        for a, b in zip(first, second, strict=True)
    )


class Deadly(Batches):
    """Its third batch ends whoever prepares it."""

    def __getitem__(self, place: Any) -> Batch:
        if place[1] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(place)


def test_an_epoch_has_every_image_once_but_for_a_last_one_alone() -> None:
    given = batches()
    found = list(given.of_epoch(0))
    assert len(found) == given.count == 5
    index = torch.cat([batch.index for batch in found])
    assert len(set(index.tolist())) == len(index) == 40
    for batch in found:
        assert batch.images.shape == (8, 1, 6, 9)
        assert (batch.labels.numpy() == split().labels[batch.index.numpy()]).all()


def test_what_is_drawn_follows_from_seed_and_epoch_alone() -> None:
    first = list(batches(**EVERYTHING).of_epoch(3))
    given = batches(**EVERYTHING)
    list(given.of_epoch(0))
    assert same(first, list(given.of_epoch(3)))
    assert not torch.equal(first[0].images, next(given.of_epoch(4)).images)
    assert not torch.equal(first[0].images, next(batches(seed=1, **EVERYTHING).of_epoch(3)).images)


def test_workers_give_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    train, alone = split(), batches(**EVERYTHING)
    train.images.tofile(tmp_path / "images")
    in_file = Split(mapped(tmp_path / "images", len(train), (6, 9, 1)), train.labels)
    shared = batches(in_file, workers=2, **EVERYTHING)
    for epoch in (1, 2):
        assert same(list(alone.of_epoch(epoch)), list(shared.of_epoch(epoch)))


def test_images_in_a_file_travel_by_its_name(tmp_path: Path) -> None:
    train = split(1000)
    train.images.tofile(tmp_path / "images")
    in_file = Split(mapped(tmp_path / "images", len(train), (6, 9, 1)), train.labels)
    sent = pickle.dumps(batches(in_file))
    assert len(sent) < train.images.nbytes / 3
    assert same(list(pickle.loads(sent).of_epoch(0)), list(batches(train).of_epoch(0)))


def test_a_worker_that_is_killed_ends_the_training_with_the_way_on() -> None:
    given = Deadly(split(), RAW, TrainingSettings(batch_size=8, workers=1), 0, 3)
    with pytest.raises(VerificationError, match="ended from outside") as caught:
        list(given.of_epoch(0))
    assert "continues from its last epoch" in caught.value.fix


def test_the_sampler_shows_every_class_as_often() -> None:
    train = split(1000)
    train = Split(train.images, np.where(np.arange(1000) < 900, 0, np.where(np.arange(1000) < 970, 1, 2)))
    index = torch.cat([batch.index for batch in batches(train, balance="sampler").of_epoch(0)]).numpy()
    counts = np.bincount(train.labels[index])
    assert counts.sum() == 1000
    assert (abs(counts - 1000 / 3) < 80).all()


def test_weights_of_classes_are_1_on_average_over_the_images() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = np.array(class_weights(labels, 4))
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[0] * 6 == pytest.approx(weights[1] * 3) == pytest.approx(weights[3] * 1)


def test_rand_augment_refuses_images_that_are_no_colours() -> None:
    with pytest.raises(DataError, match="2 channels"):
        batches(split(channels=2), rand_augment=(1, 5))
    assert next(batches(split(channels=4), colour=0.3).of_epoch(0)).images.shape == (8, 4, 6, 9)
