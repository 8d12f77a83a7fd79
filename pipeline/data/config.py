"""What a recipe says about its data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.recipe.paths import RecipePath
from pipeline.recipe.sizes import ImageSize
from pipeline.tasks import TaskKind

Level = Annotated[int, Field(ge=0, le=255)]


class DataConfig(BaseModel):
    """The ``[data]`` table of a recipe.

    Attributes:
        kind: where the images come from; ``docs/reference/recipes.md`` shows the layout of each.
        task: what the labels mean, and what is learned.
        path: folder or file of the source; every kind but ``digits`` needs one.
        validation: share of each class of the train split that is kept for validation.
        test: share of each class held out as test split by a source that comes without one.
        train_limit: use about this many images for train and validation together, the same of each class.
        test_limit: use about this many test images, the same of each class.
        background: red, green and blue, 0 to 255, of what lies under transparent pixels of image files.
        broken: what is done about image files that cannot be decoded: refuse the data, or leave them out.
        duplicates: what is done about train images whose pixels are those of a test image.
        image_size: side of a square, or height and width: resize until both sides have at least that many
            pixels, and crop the centre.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["digits", "folder", "table", "npz", "cifar", "mnist", "huggingface"]
    path: RecipePath | None = None
    task: TaskKind = "single-label"
    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.25, gt=0, lt=1)
    train_limit: int | None = Field(default=None, ge=1, le=1_000_000_000)
    test_limit: int | None = Field(default=None, ge=1, le=1_000_000_000)
    background: tuple[Level, Level, Level] = (255, 255, 255)
    broken: Literal["refuse", "skip"] = "refuse"
    duplicates: Literal["remove", "keep"] = "remove"
    image_size: ImageSize | None = None

    @model_validator(mode="after")
    def _path_fits_kind(self) -> Self:
        if self.kind == "digits" and self.path is not None:
            raise ValueError("data of kind 'digits' comes with scikit-learn and takes no path; remove 'path'")
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"data of kind '{self.kind}' needs 'path', the folder or file that holds it")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_task(self) -> Self:
        if self.task in ("multi-label", "regression") and self.kind not in ("table", "npz"):
            raise ValueError(
                f"data of kind '{self.kind}' have a class for each image; for task = '{self.task}' use kind "
                "'table' or 'npz', whose labels may have several numbers for each image"
            )
        return self
