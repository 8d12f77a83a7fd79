"""What training is asked for and what it reports; free of torch, so that recipes load fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Augmentation = Literal["none", "crop", "crop-flip"]


class TrainingSettings(BaseModel):
    """How a network is trained: SGD with Nesterov momentum, linear warm-up, cosine schedule.

    With soft targets the loss is Hinton's (``temperature``, ``soft_weight``); without, cross-entropy.
    Training stops early when validation accuracy has not risen for ``patience`` epochs; the weights of the
    best epoch are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    augment: Augmentation = "none"
    patience: int = Field(default=10, ge=1)
    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.9, ge=0, le=1)


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
