"""An image has numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.counting import MeasuresOutputs
from pipeline.tasks.metrics import r_squared

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Regression(MeasuresOutputs):
    """Outputs and labels ``(N, K)`` are numbers in units of the train labels' spread. The metric is R2.

    A network learns numbers around 0 of size 1, whatever the unit of the data; ``output * std + mean`` is in
    that unit again.

    Attributes:
        mean: of each output's train labels.
        std: their standard deviation, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: Literal["regression"] = "regression"
    metric: ClassVar[str] = "R2"
    guess: ClassVar[str] = "always saying the mean"

    @classmethod
    def of(cls, labels: NDArray[Any]) -> Regression:
        """Of the train labels ``(N, K)`` in their own units."""
        mean, std = labels.mean(axis=0, dtype=np.float64), labels.std(axis=0, dtype=np.float64)
        return cls(tuple(map(float, mean)), tuple(map(float, std)))

    def standardised(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """``(N, K)`` from the unit of the data to that of the outputs."""
        found: NDArray[np.float32] = ((labels - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return found

    def in_units(self, outputs: NDArray[Any]) -> NDArray[np.float32]:
        """``(N, K)`` from the unit of the outputs to that of the data."""
        found: NDArray[np.float32] = (outputs * np.array(self.std) + np.array(self.mean)).astype(np.float32)
        return found

    def value(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """The share of the variance that is explained, averaged over outputs."""
        return r_squared(outputs, labels)

    def shown(self, value: float) -> str:
        """By its name."""
        return f"{self.metric} {value:.2%}"

    def chance(self, labels: NDArray[Any]) -> float:
        """0: the mean explains nothing."""
        return 0.0

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        """The share of the others' variance that the outputs explain."""
        return r_squared(outputs, others)

    def agreement_shown(self, value: float) -> str:
        """The share that is explained."""
        return f"{value:.2%} of the variance in float is explained"

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean squared difference."""
        from torch.nn import functional

        return functional.mse_loss(outputs, labels)

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """The mean squared difference from the teacher's numbers, whatever the temperature."""
        from torch.nn import functional

        return functional.mse_loss(outputs, members[0])

    def sampled_loss(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Half the squared distance to numbers drawn around the outputs with spread 1."""
        import torch

        noise = torch.randn(outputs.shape, generator=generator).to(outputs.device)
        return 0.5 * (outputs - (outputs.detach() + noise)).square().sum() / len(outputs)


@dataclass(frozen=True)
class RegressionInUnits(Regression):
    """The same where outputs and labels are in the unit of the data, as of finished networks; never kept.

    Its losses are those of numbers in units of the spread.
    """

    def label_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean squared difference, each number by its spread."""
        std = outputs.new_tensor(self.std)
        return super().label_loss(outputs / std, labels / std)

    def teacher_loss(self, outputs: Tensor, members: Tensor, temperature: float) -> Tensor:
        """Likewise, from the teacher's numbers."""
        std = outputs.new_tensor(self.std)
        return super().teacher_loss(outputs / std, members / std, temperature)
