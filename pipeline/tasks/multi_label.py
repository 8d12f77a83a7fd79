"""An image has any number of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.counting import MeasuresOutputs
from pipeline.tasks.metrics import mean_average_precision

if TYPE_CHECKING:
    from torch import Generator, Tensor

_GUESSES, _HARDLY_EVER = 40, 0.95


@dataclass(frozen=True)
class MultiLabel(MeasuresOutputs):
    """Each output is the logit of one label, its sigmoid the probability; labels ``(N, K)`` are 0 or 1.

    The metric is the mean average precision: it needs no threshold, and rare labels count like frequent ones.
    """

    kind: Literal["multi-label"] = "multi-label"
    metric: ClassVar[str] = "mean average precision"
    guess: ClassVar[str] = "putting the images in any order"

    def value(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """The mean over labels of the average precision."""
        return mean_average_precision(outputs, labels)

    def shown(self, value: float) -> str:
        """By its name."""
        return f"{self.metric} {value:.2%}"

    def chance(self, labels: NDArray[Any]) -> float:
        """What random scores get in at most 5 of 100 draws."""
        generator = np.random.default_rng(0)
        drawn = [self.value(generator.random(labels.shape, np.float32), labels) for _ in range(_GUESSES)]
        return float(np.quantile(drawn, _HARDLY_EVER))

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        """Share of the labels of all images that both say are there, or are not.

        Others that are all within 0 and 1 are taken for probabilities.
        """
        threshold = 0.5 if bool(((others >= 0) & (others <= 1)).all()) else 0.0
        return float(((outputs > threshold) == (others > threshold)).mean())

    def agreement_shown(self, value: float) -> str:
        """How many labels are the same."""
        return f"{value:.2%} of the labels are the same as in float"

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy, averaged over images and labels."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs, labels)

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """``T^2 KL(p^T || q^T)`` of each label's two probabilities, averaged over images and labels."""
        from torch.nn import functional

        logits, expected = outputs / temperature, members[0] / temperature
        divergence = expected.sigmoid() * (functional.logsigmoid(expected) - functional.logsigmoid(logits))
        divergence = divergence + (-expected).sigmoid() * (
            functional.logsigmoid(-expected) - functional.logsigmoid(-logits)
        )
        return temperature**2 * divergence.mean()

    def sampled_loss(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Binary cross-entropy, summed over labels, with each label drawn."""
        import torch
        from torch.nn import functional

        drawn = torch.bernoulli(outputs.detach().sigmoid().cpu(), generator=generator).to(outputs.device)
        return functional.binary_cross_entropy_with_logits(outputs, drawn, reduction="sum") / len(outputs)
