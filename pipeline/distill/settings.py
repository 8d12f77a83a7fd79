"""What training is asked for and what it reports; free of torch, so that recipes load fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.distill.losses.settings import (
    AnyLossSettings,
    FeatureAggregationSettings,
    LabelsSettings,
    LossSettings,
    SoftTargetsSettings,
)

Operations = Annotated[int, Field(ge=1, le=14)]
Magnitude = Annotated[float, Field(ge=0, le=10)]
Precision = Literal["fp32", "bf16", "fp16"]
Augmentation = Literal["none", "crop", "crop-flip", "resized-crop"]


class TrainingSettings(BaseModel):
    """How a network is trained: SGD with Nesterov momentum, linear warm-up, cosine schedule.

    The loss is that of the labels. Training stops early when the metric on the validation slice has not
    risen for ``patience`` epochs; the weights of the best epoch are kept. ``threads`` are of the processor;
    without, torch's choice holds.

    Attributes:
        augment: crops and flips.
        colour: how far brightness, contrast and saturation change, as a share.
        rand_augment: number of operations of RandAugment on each image, and their magnitude, 0 to 10.
        mixup: parameter of the Beta distribution from which the shares of two images come; 0 for none.
        cutmix: likewise for a rectangle of another image.
        balance: whether classes with few images count as much as others: by weights in the loss of the
            labels, or by showing their images more often.
        workers: processes that prepare batches beside the one that trains; with 0 it does so itself.
        precision: of what the network and its teacher compute in training; weights and losses are always in
            float32.
        processes: that share out each batch and average their gradients, on GPUs one for each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=30, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=0.05, gt=0, le=100)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    augment: Augmentation = "none"
    colour: float = Field(default=0, ge=0, le=1)
    rand_augment: tuple[Operations, Magnitude] | None = Field(
        default=None, description="the number of operations, 1 to 14, and their magnitude, 0 to 10, in a list"
    )
    mixup: float = Field(default=0, ge=0, le=100)
    cutmix: float = Field(default=0, ge=0, le=100)
    balance: Literal["none", "weights", "sampler"] = "none"
    patience: int = Field(default=10, ge=1, le=100_000)
    threads: int | None = Field(default=None, ge=1, le=1024)
    workers: int = Field(default=0, ge=0, le=1024)
    precision: Precision = "fp32"
    processes: int = Field(default=1, ge=1, le=1024)

    @property
    def losses(self) -> tuple[LossSettings, ...]:
        """What is minimised."""
        return (LabelsSettings(),)

    @model_validator(mode="after")
    def _batches_can_be_shared_out(self) -> Self:
        if self.processes > 1 and self.batch_size < 2 * self.processes:
            raise ValueError(
                f"each of {self.processes} processes needs two images of a batch at least: set batch_size to "
                f"{2 * self.processes} or more"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_images(self) -> bool:
        """Whether the images of an epoch are others than those of the last."""
        return self.augment != "none" or self.colour > 0 or self.rand_augment is not None or self.mixes

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

    @model_validator(mode="after")
    def _losses_take_mixed_labels(self) -> Self:
        by_class = next((each.kind for each in self.loss if each.kind in ("oracle", "decoupled_kd")), None)
        if self.mixes and by_class is not None:
            raise ValueError(
                f"the loss '{by_class}' asks which class is right, which mixed images do not say: remove "
                "mixup and cutmix, or use 'soft_targets'"
            )
        return self

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
