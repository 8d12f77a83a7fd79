"""Where a student's soft targets come from: computed per batch, or once for all when images do not change."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.tensors import batches_of
from pipeline.distill.settings import DistillationSettings


class LogitSource(Protocol):
    """One frozen network or several, such as a Teacher."""

    @property
    def module(self) -> nn.Module:
        """All networks as one; ``member_logits`` runs them."""
        ...

    def member_logits(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` preprocessed float32 to logits ``(members, N, classes)``, without gradients."""
        ...


class SoftTargets(Protocol):
    """Gives the logits of the teacher's members for one training batch."""

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """``(members, N, classes)`` for the (augmented) ``images``, rows ``index`` of the train split."""
        ...

    def network(self) -> nn.Module:
        """The network that runs whenever logits are asked for, for losses that watch its layers.

        Raises:
            ValueError: none runs, because the logits are stored.
        """
        ...


class LiveTargets:
    """The teacher sees the very images that the student sees, augmentation included."""

    def __init__(self, teacher: LogitSource) -> None:
        self._teacher = teacher

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """The members' logits for ``images``."""
        return self._teacher.member_logits(images)

    def network(self) -> nn.Module:
        """The teacher."""
        return self._teacher.module


class StoredTargets:
    """Logits computed once over the train split; right only when training changes no images.

    A seeded augmentation does not help: it gives every epoch other images.
    """

    def __init__(self, teacher: LogitSource, train: Split, preprocessing: Preprocessing) -> None:
        self._logits, done = torch.empty(0), 0
        for batch in batches_of(train, preprocessing):
            found = teacher.member_logits(batch)
            if not done:
                members, _, classes = found.shape
                self._logits = torch.empty(members, len(train), classes)
            self._logits[:, done : done + len(batch)] = found
            done += len(batch)

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """The stored logits of rows ``index``."""
        return self._logits[:, index].to(images.device)

    def network(self) -> nn.Module:
        """None: only the logits are kept."""
        raise ValueError("stored targets have no feature maps; use LiveTargets")


def targets_for(teacher: LogitSource, dataset: Dataset, settings: DistillationSettings) -> SoftTargets | None:
    """What a training with these settings needs of the teacher: nothing, stored logits, or the teacher live.

    Logits are stored where images never change and no loss watches the teacher's layers.
    """
    if not settings.needs_teacher:
        return None
    if not settings.changes_images and not settings.needs_features:
        return StoredTargets(teacher, dataset.train, dataset.preprocessing)
    return LiveTargets(teacher)
