"""An image has a vector, which is near to those of images like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.counting import CountsImages, by_class
from pipeline.tasks.metrics import nearest_is_alike

if TYPE_CHECKING:
    from torch import Generator, Tensor

_SHORTEST = 1e-12


@dataclass(frozen=True)
class Embedding(CountsImages):
    """Outputs are vectors that imitate the teacher's, compared by their cosine; labels say who is alike.

    The metric is retrieval@1: of the images of a split that are not the only one of their label, the share
    whose most similar other image has the same label (face recognition in AKD, 1911.09074). Labels teach
    nothing, so classes of the test split need not be among those of the train split.
    """

    kind: Literal["embedding"] = "embedding"
    metric: ClassVar[str] = "retrieval@1"
    guess: ClassVar[str] = "naming any other image"

    def value(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """Share of the images whose most similar other image has their label."""
        found = nearest_is_alike(outputs, labels)
        asked = found >= 0
        return float(found[asked].mean()) if asked.any() else 0.0

    def counts(
        self, outputs: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Class by class, of the images that are not the only one of their class."""
        found = nearest_is_alike(outputs, labels)
        asked = found >= 0
        right, total = by_class(found[asked] > 0, labels[asked], int(labels.max()) + 1)
        return right, total

    def shown(self, value: float) -> str:
        """By its name."""
        return f"{self.metric} {value:.2%}"

    def chance(self, labels: NDArray[Any]) -> float:
        """Share of the other images that have the same label, over all images that have any."""
        counts = np.bincount(labels)
        counts = counts[counts > 1]
        asked = counts.sum()
        return float((counts * (counts - 1)).sum() / (asked * (len(labels) - 1))) if asked else 0.0

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        """The mean cosine of each image's two vectors."""
        lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(others, axis=1)
        return float(((outputs * others).sum(axis=1) / np.maximum(lengths, _SHORTEST)).mean())

    def agreement_shown(self, value: float) -> str:
        """The cosine."""
        return f"a mean cosine of {value:.4f} with the vectors in float"

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """There is none.

        Raises:
            ValueError: always; recipes refuse it.
        """
        raise ValueError("labels teach no embedding")

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """The squared distance of the vectors at length 1, whatever the temperature."""
        from torch.nn import functional

        return 2 - 2 * functional.cosine_similarity(outputs, members[0], dim=1).mean()

    def sampled_loss(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Half the squared distance, at length 1, to vectors drawn around the outputs."""
        import torch
        from torch.nn import functional

        unit = functional.normalize(outputs, dim=1)
        noise = torch.randn(outputs.shape, generator=generator).to(outputs.device)
        return 0.5 * (unit - (unit.detach() + noise)).square().sum() / len(outputs)
