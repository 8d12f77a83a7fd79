"""The protocol of a task, and the tasks that there are. Importing them imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.tasks.embedding import Embedding
from pipeline.tasks.multi_label import MultiLabel
from pipeline.tasks.regression import Regression
from pipeline.tasks.single_label import SingleLabel

if TYPE_CHECKING:
    from torch import Generator, Tensor

TaskKind = Literal["single-label", "multi-label", "regression", "embedding"]


class Task(Protocol):
    """What the rest of the pipeline asks of a task.

    Every metric is 1 for outputs that are perfect, larger is better, and is shown in per cent. ``outputs``
    are ``(N, K)`` float32 as the network gives them; ``labels`` have N rows as ``Split`` has them.
    """

    @property
    def kind(self) -> TaskKind:
        """As a recipe calls it."""
        ...

    @property
    def metric(self) -> str:
        """Name of the metric."""
        ...

    @property
    def guess(self) -> str:
        """What one does who never looks at an image, in words."""
        ...

    def value(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """The metric."""
        ...

    def counts(
        self, outputs: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Right images and all images of each class; ``None`` where the metric counts no images."""
        ...

    def shown(self, value: float) -> str:
        """A value of the metric in words, by its name where that is not accuracy."""
        ...

    def spread(self, value: float, count: int) -> float | None:
        """One standard error of the metric over ``count`` images, if it is known."""
        ...

    def chance(self, labels: NDArray[Any]) -> float:
        """What ``guess`` gets."""
        ...

    def better_than_chance(self, value: float, count: int, chance: float) -> bool:
        """Whether ``guess`` hardly ever gets that much over ``count`` images."""
        ...

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        """How far outputs say the same as others, whatever the labels: 1 if they do."""
        ...

    def agreement_shown(self, value: float) -> str:
        """An agreement with the outputs in float, in words."""
        ...

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What the labels alone teach: a scalar, averaged over the batch."""
        ...

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """What the teacher's outputs ``(members, N, K)`` teach: a scalar, averaged over the batch."""
        ...

    def sampled_loss(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Minus the log-likelihood of answers drawn from what the outputs say, averaged over the batch.

        The squares of its gradients are Fisher information. ``generator`` draws on the CPU, so that a seed
        draws the same everywhere.
        """
        ...


AnyTask = Annotated[SingleLabel | MultiLabel | Regression | Embedding, Field(discriminator="kind")]
"""Every task, told apart by its kind."""
