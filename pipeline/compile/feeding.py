"""How the data of a person become what an input of the model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.model import GivenModel, TensorSpec
from pipeline.data.base import Preprocessing
from pipeline.errors import DataError
from pipeline.memory import gigabytes, machine_bytes

_AT_A_TIME = 64
_COPIES = 2
"""Of inputs: themselves, and the file as it is written."""


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
        DataError: they have another shape or type, or this machine has not the memory for them.
    """
    wanted = spec.shape[1:]
    _require_room(len(values), model, spec)
    if values.dtype == np.uint8 and (spec.is_float or values.shape[1:] != wanted):
        return _fed_images(images_of(values, model, spec), feeding, model, spec)
    if values.shape[1:] != wanted or (values.dtype.kind == "f") != spec.is_float:
        raise _misfit(values, model, spec, "numbers are given to the model as they are")
    with np.errstate(over="ignore"):
        found: NDArray[Any] = values.astype(spec.dtype, copy=False)
    if spec.is_float and not np.isfinite(found).all():
        raise DataError(
            f"the data hold NaN, infinity or numbers beyond {spec.dtype}", fix="leave these inputs out"
        )
    if not spec.is_float and not np.array_equal(found, values):
        raise _beyond(model, spec)
    return found


def _fed_images(
    images: NDArray[np.uint8], feeding: Feeding, model: GivenModel, spec: TensorSpec
) -> NDArray[Any]:
    """Some at a time, as they take several times their memory on the way."""
    found = np.empty((len(images), *spec.shape[1:]), spec.dtype)
    for start in range(0, len(images), _AT_A_TIME):
        some, into = images[start : start + _AT_A_TIME], found[start : start + _AT_A_TIME]
        rows: NDArray[Any] = feeding(some, images.shape[3]) if spec.is_float else some
        rows = rows if images.shape[1:] == spec.shape[1:] else rows.transpose(0, 3, 1, 2)
        into[:] = rows
        if not spec.is_float and not np.array_equal(into, rows):
            raise _beyond(model, spec)
    return found


def _require_room(count: int, model: GivenModel, spec: TensorSpec) -> None:
    needed = _COPIES * count * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    if needed > machine_bytes():
        raise DataError(
            f"{count} inputs of {model.name} need at least {gigabytes(needed)} of memory",
            why=f"this machine has {gigabytes(machine_bytes())}",
            fix="give fewer, or export the model for smaller inputs",
        )


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
    images = with_channels(resize_all(images, (height, width)), channels)
    if images.shape[1:] != size:
        why = f"images of {height}x{width} with {channels} channels are needed"
        raise _misfit(values, model, spec, why)
    return images


def _beyond(model: GivenModel, spec: TensorSpec) -> DataError:
    return DataError(
        f"the data do not fit {model.name}",
        why=f"some numbers do not fit into {spec.dtype}, which its input '{spec.name}' takes",
        fix=f"give them as {spec.dtype} in the model's own shape and scale, in an .npz or .npy file",
    )


def _misfit(values: NDArray[Any], model: GivenModel, spec: TensorSpec, why: str) -> DataError:
    which = "input" if len(model.inputs) == 1 else f"input '{spec.name}'"
    return DataError(
        f"the data do not fit {model.name}",
        why=f"its {which} is {' x '.join(map(str, spec.shape[1:]))} {spec.dtype}, the data are rows of "
        f"{' x '.join(map(str, values.shape[1:]))} {values.dtype}; {why}",
        fix="give data of that shape",
    )
