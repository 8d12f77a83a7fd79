"""How the data of a person become what an input of the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.model import GivenModel, TensorSpec
from pipeline.data.base import Preprocessing
from pipeline.errors import DataError


@dataclass(frozen=True)
class Feeding:
    """How images become inputs: ``(image / 255 - mean) / std`` per channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, images: NDArray[np.uint8], channels: int) -> NDArray[np.float32]:
        """``(N, H, W, C)`` bytes to float32."""
        return Preprocessing(*self.for_channels(channels))(images)

    def for_channels(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one for each channel.

        Raises:
            DataError: there is another number of them.
        """
        mean, std = (values * channels if len(values) == 1 else values for values in (self.mean, self.std))
        if not len(mean) == len(std) == channels:
            raise DataError(
                f"--mean and --std are of {max(len(mean), len(std))} channels, the images have {channels}",
                fix="give one number, or one for each channel",
            )
        return mean, std


def square_side(spec: TensorSpec) -> int | None:
    """Side of the images that an input takes, if they are square."""
    size = image_size(spec)
    return size[0] if size is not None and size[0] == size[1] else None


def image_size(spec: TensorSpec) -> tuple[int, int, int] | None:
    """Height, width and channels of the images that an input takes, if it takes images."""
    shape = spec.shape
    if len(shape) != 4:
        return None
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        return shape[1], shape[2], shape[3]
    return (shape[2], shape[3], shape[1]) if shape[1] in (1, 3) else None


def fed(values: NDArray[Any], feeding: Feeding, model: GivenModel, spec: TensorSpec) -> NDArray[Any]:
    """What one input of the model takes.

    Raises:
        DataError: they have another shape or type.
    """
    wanted, dtype = spec.shape[1:], np.dtype(spec.dtype)
    if values.dtype == np.uint8 and (spec.is_float or values.shape[1:] != wanted):
        images = images_of(values, model, spec)
        rows: NDArray[Any] = feeding(images, images.shape[3]) if spec.is_float else images
        rows = rows if wanted == images.shape[1:] else np.ascontiguousarray(rows.transpose(0, 3, 1, 2))
        return rows.astype(dtype)
    if values.shape[1:] != wanted or (values.dtype.kind == "f") != spec.is_float:
        raise _misfit(values, model, spec, "numbers are given to the model as they are")
    if spec.is_float and not np.isfinite(values).all():
        raise DataError("the data hold NaN or infinity", fix="leave these inputs out")
    found: NDArray[Any] = values.astype(dtype)
    if not spec.is_float and not np.array_equal(found, values):
        raise _misfit(values, model, spec, f"its numbers do not fit into {dtype}")
    return found


def images_of(values: NDArray[np.uint8], model: GivenModel, spec: TensorSpec) -> NDArray[np.uint8]:
    """Images ``(N, H, W, C)`` in the size and with the channels that an input of the model takes.

    Raises:
        DataError: they cannot be brought to that.
    """
    from pipeline.data.images import resize_all, with_channels

    size = image_size(spec)
    images = values[..., None] if values.ndim == 3 else values
    if size is None or images.ndim != 4 or images.shape[3] not in (1, 3):
        why = "bytes are images (N, height, width, channels) with 1 or 3 channels"
        raise _misfit(values, model, spec, why)
    height, width, channels = size
    if images.shape[1:3] != (height, width) and height == width:
        images = resize_all(images, height)
    images = with_channels(images, channels)
    if images.shape[1:] != size:
        why = f"images of {height}x{width} with {channels} channels are needed"
        raise _misfit(values, model, spec, why)
    return images


def _misfit(values: NDArray[Any], model: GivenModel, spec: TensorSpec, why: str) -> DataError:
    which = "input" if len(model.inputs) == 1 else f"input '{spec.name}'"
    return DataError(
        f"the data do not fit {model.name}",
        why=f"its {which} is {' x '.join(map(str, spec.shape[1:]))} {spec.dtype}, the data are rows of "
        f"{' x '.join(map(str, values.shape[1:]))} {values.dtype}; {why}",
        fix="give data of that shape",
    )
