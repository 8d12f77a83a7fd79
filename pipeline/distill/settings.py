"""What training is asked for and what it reports; free of torch, so that recipes load fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.distill.losses.settings import (
    AnyLossSettings,
    FeatureAggregationSettings,
    LabelsSettings,
    LossSettings,
    SoftTargetsSettings,
)

Augmentation = Literal["none", "crop", "crop-flip"]


class TrainingSettings(BaseModel):
    """How a network is trained: SGD with Nesterov momentum, linear warm-up, cosine schedule.

    The loss is cross-entropy with the labels. Training stops early when validation accuracy has not
    risen for ``patience`` epochs; the weights of the best epoch are kept. ``threads`` are of the processor;
    without, torch's choice holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=30, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=0.05, gt=0, le=100)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    augment: Augmentation = "none"
    patience: int = Field(default=10, ge=1, le=100_000)
    threads: int | None = Field(default=None, ge=1, le=1024)

    @property
    def losses(self) -> tuple[LossSettings, ...]:
        """What is minimised."""
        return (LabelsSettings(),)

    def without_schedule(self) -> TrainingSettings:
        """How images are batched and augmented, and by how many threads; all else as by default."""
        return TrainingSettings(batch_size=self.batch_size, augment=self.augment, threads=self.threads)


class DistillationSettings(TrainingSettings):
    """How a student is trained: by the weighted sum of the losses in ``loss``.

    The default is 0.1 of cross-entropy with the labels and 0.9 of soft targets at temperature 4.
    """

    loss: tuple[AnyLossSettings, ...] = Field(
        default=(LabelsSettings(weight=0.1), SoftTargetsSettings(weight=0.9, temperature=4.0)), min_length=1
    )

    @property
    def losses(self) -> tuple[LossSettings, ...]:
        """What is minimised."""
        return self.loss

    @property
    def searched(self) -> tuple[FeatureAggregationSettings, ...]:
        """The losses whose mixtures have to be found before a training."""
        return tuple(
            each for each in self.loss if isinstance(each, FeatureAggregationSettings) and each.is_searched
        )

    def with_mixtures(self, found: Sequence[tuple[tuple[float, ...], ...]]) -> DistillationSettings:
        """The same with what was found for each of ``searched``."""
        left = iter(found)
        losses = tuple(
            each.found(next(left))
            if isinstance(each, FeatureAggregationSettings) and each.is_searched
            else each
            for each in self.loss
        )
        return self.model_copy(update={"loss": losses})

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss compares with the teacher."""
        return any(each.needs_teacher for each in self.loss)

    @property
    def needs_features(self) -> bool:
        """Whether a loss watches layers."""
        return any(each.needs_features for each in self.loss)


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave: mean training loss, accuracy on the validation slice, learning rate at its end."""

    epoch: int
    loss: float
    validation_accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingResult:
    """The trained model holds the weights of ``best_epoch``; ``history`` has every epoch."""

    best_epoch: int
    best_validation_accuracy: float
    history: tuple[EpochRecord, ...]
