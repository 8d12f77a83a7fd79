"""What the search for mixtures is asked for; free of torch, so that recipes load fast."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MixtureSearchSettings(BaseModel):
    """How the mixtures of feature aggregation are searched: DARTS' optimisers where the paper leaves it open.

    Images are augmented and batched as in the training that follows.

    Attributes:
        objective: what mixtures are searched with: ``bridge``, both paths; ``teacher_to_student`` or
            ``student_to_teacher``, one of them; ``student_loss``, the loss of the final training.
        epochs: of each group, over one half of the train images.
        warmup_epochs: the first of them, in which the mixture stays the average.
        learning_rate: of student and connectors, at the start of a group; falls by a cosine.
        momentum: of student and connectors.
        weight_decay: of student and connectors.
        mixture_learning_rate: of Adam, for the logits of the mixture. DARTS has 0.0003 for thirty times as
            many steps.
        mixture_decay: of the logits of the mixture, which pulls to the average.
        balance: strength of the path from teacher to student over the other one, in gradients on the
            mixture after the warm-up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    objective: Literal["bridge", "teacher_to_student", "student_to_teacher", "student_loss"] = "bridge"
    epochs: int = Field(default=10, ge=1, le=100_000)
    warmup_epochs: int = Field(default=3, ge=0, le=100_000)
    learning_rate: float = Field(default=0.025, gt=0, le=100)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0, le=1)
    mixture_learning_rate: float = Field(default=0.02, gt=0, le=100)
    mixture_decay: float = Field(default=1e-3, ge=0, le=1)
    balance: float = Field(default=1.0, gt=0, le=1e6)

    @model_validator(mode="after")
    def _searches_after_the_warm_up(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError("'warmup_epochs' must be below 'epochs': the rest is the search")
        return self
