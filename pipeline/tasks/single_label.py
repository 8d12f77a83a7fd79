"""Every image is of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.chance import majority_share
from pipeline.tasks.counting import CountsImages, by_class
from pipeline.tasks.metrics import names_the_class

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class SingleLabel(CountsImages):
    """Outputs are logits of the classes; labels ``(N,)`` are their numbers. The metric is accuracy."""

    kind: Literal["single-label"] = "single-label"
    metric: ClassVar[str] = "accuracy"
    guess: ClassVar[str] = "always naming the most frequent class"

    def value(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """Share of the images that get their label."""
        return float(names_the_class(outputs, labels).mean())

    def counts(
        self, outputs: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Class by class, in the order of the logits."""
        right, total = by_class(names_the_class(outputs, labels), labels, outputs.shape[1])
        return right, total

    def shown(self, value: float) -> str:
        """In per cent."""
        return f"{value:.2%}"

    def chance(self, labels: NDArray[Any]) -> float:
        """Share of the most frequent class."""
        return majority_share(labels)

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        """Share of the images of which both name the same class."""
        return float((outputs.argmax(axis=1) == others.argmax(axis=1)).mean())

    def agreement_shown(self, value: float) -> str:
        """For how many images the class is the same."""
        return f"the same class as in float for {value:.2%} of the images"

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy; labels may also be probabilities ``(N, K)`` of the classes."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, labels)

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """``T^2 KL(p^T || q^T)`` (1503.02531); of an ensemble, p^T is the mean of its members' probabilities.

        The T^2 keeps the gradient independent of the temperature to first order.
        """
        from torch.nn import functional

        from pipeline.tasks.probabilities import mean_log_probabilities

        divergence = functional.kl_div(
            functional.log_softmax(outputs / temperature, dim=1),
            mean_log_probabilities(functional.log_softmax(members / temperature, dim=2)),
            reduction="batchmean",
            log_target=True,
        )
        return temperature**2 * divergence

    def sampled_loss(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Cross-entropy with a class drawn for each image."""
        import torch
        from torch.nn import functional

        drawn = torch.multinomial(outputs.detach().softmax(dim=1).cpu(), 1, generator=generator).squeeze(1)
        return functional.cross_entropy(outputs, drawn.to(outputs.device))


@dataclass(frozen=True)
class WeightedClasses(SingleLabel):
    """The same where classes weigh differently in the loss of the labels; never kept.

    Attributes:
        weights: of the classes, 1 on average over the images.
    """

    weights: tuple[float, ...] = ()

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean over the images of the weighted cross-entropy."""
        from torch.nn import functional

        weights = outputs.new_tensor(self.weights)
        return functional.cross_entropy(outputs, labels, weights, reduction="none").mean()


SINGLE_LABEL = SingleLabel()
