"""The batches of a training: drawn, read, augmented and mixed, in this process or by workers beside it."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from devices.host import end_with_parent
from pipeline.data.base import Preprocessing, Split
from pipeline.data.carrying import carried, opened
from pipeline.data.tensors import to_tensor
from pipeline.distill.augment import augment
from pipeline.distill.colours import recoloured
from pipeline.distill.mixing import mixed
from pipeline.distill.rand_augment import rand_augmented
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import DataError, VerificationError

_FEWEST = 2
_AHEAD = 2
"""Batches that each worker prepares before they are asked for."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step of the training sees.

    Attributes:
        images: ``(N, C, H, W)`` float32.
        index: ``(N,)``, their rows in the train split.
        labels: as the task has them; of mixed images with a single label, probabilities ``(N, K)``.
    """

    images: Tensor
    index: Tensor
    labels: Tensor

    def at(self, places: slice | Tensor) -> Batch:
        """A part of it."""
        return Batch(self.images[places], self.index[places], self.labels[places])


_Place = tuple[int, int, Tensor]
"""Epoch, number of the batch in it, rows of the train split."""


class Batches(Dataset[Batch]):
    """The batches of a train split, the same for a seed whoever prepares them.

    Args:
        train: with the images.
        preprocessing: of the images.
        settings: size, augmentation, mixing, balance and workers.
        seed: of order and augmentation.
        classes: how many there are, or how many labels or numbers.

    Raises:
        DataError: the images have not the channels that an operation needs.
    """

    def __init__(
        self, train: Split, preprocessing: Preprocessing, settings: TrainingSettings, seed: int, classes: int
    ) -> None:
        channels = train.images.shape[3]
        if settings.rand_augment is not None and channels not in (1, 3):
            raise DataError(
                f"rand_augment cannot be done with images of {channels} channels",
                why="its operations are of grey images and of colours",
                fix="remove rand_augment, and use augment and colour",
            )
        self._train, self._preprocessing, self._settings = train, preprocessing, settings
        self._seed, self._classes = seed, classes
        self._asked: list[_Place] = []
        self._shares = _shares_of_images(train) if settings.balance == "sampler" else None

    @property
    def count(self) -> int:
        """Batches of an epoch.

        A last one is left out if it has not two images for each process: one alone would break BatchNorm.
        """
        whole, rest = divmod(len(self._train), self._settings.batch_size)
        return max(1, whole + (rest >= _FEWEST * self._settings.processes))

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in order.

        Raises:
            VerificationError: a worker was killed.
        """
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        if self._shares is None:
            order = torch.randperm(len(self._train), generator=generator)
        else:
            order = torch.multinomial(self._shares, len(self._train), replacement=True, generator=generator)
        parts = torch.split(order, self._settings.batch_size)[: self.count]
        places = [(epoch, number, index) for number, index in enumerate(parts)]
        return self._by_workers(places) if self._settings.workers else map(self.__getitem__, places)

    def __getitem__(self, place: _Place) -> Batch:
        """Prepare one batch; all that is drawn follows from the seed and its place."""
        epoch, number, index = place
        settings, rows = self._settings, index.numpy()
        drawn = np.random.default_rng([self._seed, epoch, number])
        pixels = self._train.images[rows]
        if settings.rand_augment is not None:
            background = tuple(round(255 * level) for level in self._preprocessing.mean)
            pixels = rand_augmented(pixels, *settings.rand_augment, drawn, background)
        if settings.colour:
            pixels = recoloured(pixels, settings.colour, drawn)
        generator = torch.Generator().manual_seed(int(drawn.integers(2**63)))
        images = augment(to_tensor(pixels, self._preprocessing), settings.augment, generator)
        labels = torch.from_numpy(self._train.labels[rows])
        if settings.mixes:
            if labels.ndim == 1:
                labels = functional.one_hot(labels, self._classes).float()
            images, labels = mixed(images, labels, drawn, mixup=settings.mixup, cutmix=settings.cutmix)
        return Batch(images, index, labels)

    def _by_workers(self, places: Sequence[_Place]) -> Iterator[Batch]:
        self._asked[:] = places
        with _handler_of_children_kept():
            prepared = iter(self._loader)
        try:
            yield from prepared
        except (RuntimeError, EOFError, ConnectionError) as error:
            # A batch that lies in the memory of a worker that is gone ends in the latter two.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise VerificationError(
                "a process that prepares batches was ended from outside",
                why=str(error).partition("\n")[0] or "its connection ended",
                fix="see that there is memory left, or lower 'workers', and run the same command again: it "
                "continues from its last epoch",
            ) from error

    @cached_property
    def _loader(self) -> DataLoader[Batch]:
        """Its workers stay from epoch to epoch."""
        # Forked from a server that has no threads and imported torch once for all of them.
        context = get_context("forkserver")
        context.set_forkserver_preload(["torch"])
        # How many workers there are is for whoever writes the recipe.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        return DataLoader(
            self,
            batch_size=None,
            sampler=self._asked,
            num_workers=self._settings.workers,
            prefetch_factor=_AHEAD,
            persistent_workers=True,
            worker_init_fn=_as_a_worker,
            generator=torch.Generator(),  # Without one it draws from that of dropout.
            multiprocessing_context=context,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What goes to the workers."""
        state = {name: value for name, value in vars(self).items() if name != "_loader"}
        return state | {"_train": carried(self._train), "_asked": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_train": opened(state["_train"])})


def class_weights(labels: np.ndarray[tuple[int], np.dtype[np.int64]], classes: int) -> tuple[float, ...]:
    """For each class the inverse of its share: all weigh the same, and an image weighs 1 on average."""
    counts = np.bincount(labels, minlength=classes)
    return tuple((len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist())


def _shares_of_images(train: Split) -> Tensor:
    """How often each image is to be drawn, relative to others."""
    weights = class_weights(train.labels, int(train.labels.max()) + 1)
    return torch.tensor(weights, dtype=torch.float64)[torch.from_numpy(train.labels)]


@contextmanager
def _handler_of_children_kept() -> Iterator[None]:
    """Torch's own would raise when a worker dies, anywhere in the training; the next batch tells as well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def _as_a_worker(number: int) -> None:
    """Who ends the command ends the process that trains; that one ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
