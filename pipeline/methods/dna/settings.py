"""What a run of DNA is asked for; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.distill.settings import Augmentation


class DnaSettings(BaseModel):
    """How the blocks are trained and evaluated (1911.13053, sections 3 and 4.1; settings as released).

    Attributes:
        epochs: of each block.
        batch_size: of training and score.
        learning_rate: of Adam, for all blocks but the first and the last.
        edge_learning_rate: of the first and the last block.
        learning_rate_decay: factor on the learning rate after every epoch.
        weight_decay: on matrices and convolutions only.
        augment: what is done to the images in training; the teacher sees the same images.
        score_share: share of the train split that is held out for scores.
        score_images: most images of the held-out slice that are used.
        calibration_images: train images from which BatchNorm's statistics of a path are computed.
        inputs: what a block is given: the teacher's features, or those of the best path of the blocks before
            it, which are then trained one after the other. The second is there to be compared with.
        measure: mean absolute difference in standard deviations of the teacher's features, or the mean
            squared difference. The second is there to be compared with.
        recalibrate: compute BatchNorm's statistics for every path; without, the supernet's own are used,
            which is there to be compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=0.005, gt=0, le=100)
    edge_learning_rate: float = Field(default=0.002, gt=0, le=100)
    learning_rate_decay: float = Field(default=0.9, gt=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    augment: Augmentation = "none"
    score_share: float = Field(default=0.1, gt=0, lt=1)
    score_images: int = Field(default=1024, ge=2, le=1_000_000_000)
    calibration_images: int = Field(default=256, ge=2, le=1_000_000_000)
    inputs: Literal["teacher", "student"] = "teacher"
    measure: Literal["relative-l1", "mse"] = "relative-l1"
    recalibrate: bool = True
