"""Files that inputs are taken from: arrays, pictures and sounds, each read with limits."""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices.digests import file_digest, value_digest
from devices.errors import MeasurementError
from devices.untrusted import array_from, arrays_from, regular_size
from devices.words import cause_of, listed

__all__ = ["FORMS", "InputFile", "read_input"]

Form = Literal["array", "picture", "sound"]

MOST_BYTES = 1 << 30
MOST_PIXELS = 40_000_000


@dataclass(frozen=True)
class InputFile:
    """The content of a file as an ``.npy`` file that a device can read.

    Attributes:
        npy: an array as it was; a picture of (height, width, channels) in uint8; a sound's samples in int16.
        shape: of that.
        said: the file's name and the beginning of its digest.
    """

    npy: Path
    form: Form
    shape: tuple[int, ...]
    said: str

    def sizes(self) -> list[int] | dict[str, list[int]]:
        """For the agent: the shape, or what has to be brought into the layout of the input first."""
        return list(self.shape) if self.form == "array" else {self.form: list(self.shape)}


def read_input(name: str, path: Path, folder: Path) -> InputFile:
    """Read a file for an input.

    Args:
        name: of the input, by which an array of an ``.npz`` file is chosen.
        path: the file, told by its suffix.
        folder: where the array is written.

    Raises:
        MeasurementError: the file is missing, of another kind, damaged, or too large.
    """
    form, read = FORMS.get(path.suffix.lower(), (None, None))
    if form is None or read is None:
        raise MeasurementError(
            f"{str(path)!r} is no file that an input can be taken from",
            why=f"these are: {listed(FORMS)}",
        )
    try:
        if regular_size(path) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        values = read(path, name)
        digest = file_digest(path)
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"the values of input '{name}' cannot be read from {str(path)!r}", why=cause_of(error)
        ) from error
    npy = folder / f"{value_digest([digest, name])}.npy"
    np.save(npy, values, allow_pickle=False)
    return InputFile(npy, form, values.shape, f"{path.name} ({digest[:8]})")


def _npy(path: Path, name: str) -> NDArray[Any]:
    return _numbers(array_from(path))


def _npz(path: Path, name: str) -> NDArray[Any]:
    """The array of the input's name; of a file with one array, that."""
    arrays = arrays_from(path)
    if name not in arrays and len(arrays) != 1:
        raise ValueError(f"it has no array '{name}', only {listed(sorted(arrays)) or 'none'}")
    return _numbers(arrays[name] if name in arrays else next(iter(arrays.values())))


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"it holds values of type {values.dtype}, not numbers")
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))


def _picture(path: Path, name: str) -> NDArray[Any]:
    """Grey pictures have one channel; all others are given as red, green and blue, as they are seen."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(opened)
            picture = upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB")
            values = np.asarray(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"it is no picture, or damaged: {error}") from error
    return values[..., np.newaxis] if values.ndim == 2 else values


def _sound(path: Path, name: str) -> NDArray[Any]:
    """16-bit samples; of several channels the first."""
    try:
        with wave.open(str(path), "rb") as opened:
            if opened.getsampwidth() != 2:
                raise ValueError(f"its samples have {8 * opened.getsampwidth()} bits, not 16")
            channels, count = opened.getnchannels(), opened.getnframes()
            content = opened.readframes(count)
    except (wave.Error, EOFError, RuntimeError) as error:  # the last where a chunk is longer than the file
        raise ValueError(
            f"it is no .wav file with 16 bits, or damaged: {error or 'it ends too early'}"
        ) from error
    if len(content) != 2 * channels * count:
        raise ValueError(
            f"its header promises {count:,} samples, and {len(content) // (2 * channels):,} follow"
        )
    return np.frombuffer(content, "<i2").reshape(-1, channels)[:, 0].copy()


FORMS: dict[str, tuple[Form, Callable[[Path, str], NDArray[Any]]]] = {
    ".npy": ("array", _npy),
    ".npz": ("array", _npz),
    ".png": ("picture", _picture),
    ".jpg": ("picture", _picture),
    ".jpeg": ("picture", _picture),
    ".wav": ("sound", _sound),
}
"""By suffix: what a file is, and how it is read."""
