"""Where a student's soft targets come from: computed per batch, or once for all when images do not change."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.base import Preprocessing, Split
from pipeline.data.tensors import batches_of


class LogitSource(Protocol):
    """A frozen network, such as a Teacher."""

    def logits(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` preprocessed float32 to logits ``(N, classes)``, without gradients."""
        ...


class SoftTargets(Protocol):
    """Gives the teacher's logits for one training batch."""

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """Logits ``(N, classes)`` for the (augmented) ``images``, rows ``index`` of the train split."""
        ...


class LiveTargets:
    """The teacher sees the very images that the student sees, augmentation included."""

    def __init__(self, teacher: LogitSource) -> None:
        self._teacher = teacher

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """The teacher's logits for ``images``."""
        return self._teacher.logits(images)


class StoredTargets:
    """Logits computed once over the train split; right only when training does not augment."""

    def __init__(self, teacher: LogitSource, train: Split, preprocessing: Preprocessing) -> None:
        self._logits = torch.cat([teacher.logits(batch).cpu() for batch in batches_of(train, preprocessing)])

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """The stored logits of rows ``index``."""
        return self._logits[index].to(images.device)
