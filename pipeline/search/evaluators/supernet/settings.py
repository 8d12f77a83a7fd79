"""How weights that all candidates share are trained; free of torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.distill.settings import Augmentation


class SupernetSettings(BaseModel):
    """How shared weights are trained: Adam, cosine schedule.

    Attributes:
        epochs: over the images.
        batch_size: of training.
        learning_rate: in the first epoch.
        augment: what is done to the images.
        train_limit: images of the train split that are used; all without.
        score_images: images of the validation slice with which a candidate is rated, at most.
        threads: of the processor; without, torch's choice holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=24, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=0.004, gt=0, le=100)
    augment: Augmentation = "none"
    train_limit: int | None = Field(default=None, ge=2, le=1_000_000_000)
    score_images: int = Field(default=128, ge=2, le=1_000_000_000)
    threads: int | None = Field(default=None, ge=1, le=1024)
