"""Inputs for a finished model: some to calibrate with, and others to compare and to take the accuracy on.

Stage ``samples``. What may be given:

- whatever a recipe's ``[data]`` takes: folders of images by class, ``.npz`` with ``train_x`` and so on,
  CIFAR and MNIST as their sites ship them, saved Hugging Face data sets. Calibration is from the train split,
  the rest from the test split;
- a folder of images without classes;
- ``.npz`` with ``x`` and, if there are labels, ``y``, or ``images`` and ``labels`` as bundles have them; or
  ``.npy``. Bytes are images; floating point numbers are given to the model as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import array_from, arrays_from
from devices.words import cause_of
from pipeline.compile.model import GivenModel
from pipeline.compile.services import CompileServices
from pipeline.data.base import Preprocessing
from pipeline.data.config import DataConfig
from pipeline.data.fingerprint import fingerprint
from pipeline.data.images import IMAGE_SUFFIXES, decode_all, resize_all, with_channels
from pipeline.data.loading import load
from pipeline.errors import DataError
from pipeline.work.canonical import OutsideFile, StoredFile
from pipeline.work.stage import StageFolder, stage

CALIBRATION = 128
"""Inputs to calibrate with: more change no range that matters."""
HELD_OUT = 2000
"""Inputs at most for the accuracy: half a point is then ten of them."""
RANDOM = 16
_ARRAYS = "samples.safetensors"


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


@dataclass(frozen=True)
class SamplesInput:
    """Where inputs come from.

    Attributes:
        source: ``None`` for random ones.
        feeding: how images become inputs.
        model: which takes them.
    """

    source: OutsideFile | None
    feeding: Feeding
    model: GivenModel

    @classmethod
    def of(cls, path: Path | None, feeding: Feeding, model: GivenModel) -> SamplesInput:
        """With the data as they are now."""
        if path is None:
            return cls(None, feeding, model)
        return cls(OutsideFile(path, fingerprint(DataConfig(kind="folder", path=path))), feeding, model)


@dataclass(frozen=True)
class Samples:
    """Inputs in a file, as the model takes them.

    Attributes:
        digest: over all of them.
        arrays: ``calibration``, ``held_out`` and, if there are labels, ``labels`` of what is held out; of
            images with labels also ``images``, the bytes of what is held out.
        counts: inputs to calibrate with, and held out.
        labelled: there are labels.
        random: there are no data.
        image_shape: height, width and channels of ``images``; ``None`` if there are none.
        classes: names of the labels, in their order; empty where they have none.
        notes: what there is to say of them.
    """

    digest: str
    arrays: StoredFile
    counts: tuple[int, int]
    labelled: bool
    random: bool
    image_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Read:
    """What was read: inputs of two parts, and labels of either if there are any."""

    calibration: NDArray[np.float32]
    held_out: NDArray[np.float32]
    calibration_labels: NDArray[np.int64] | None = None
    labels: NDArray[np.int64] | None = None
    images: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@stage("samples", packages=("numpy", "pillow", "datasets"))
def prepare_samples(given: SamplesInput, folder: StageFolder, services: CompileServices) -> Samples:
    """Read, check and split the inputs.

    Raises:
        DataError: the data are missing, of another shape than the model's input, of one class, or too few.
    """
    from safetensors.numpy import save_file

    model = given.model
    if given.source is None:
        read = _random(model)
    else:
        with services.reporter.task("reading the data", ""):
            read = _read(given.source.path, given.feeding, model)
        _check(read, given.source.path, model)
    arrays = {"calibration": read.calibration, "held_out": read.held_out}
    if read.labels is not None:
        arrays["labels"] = read.labels  # type: ignore[assignment]
    if read.labels is not None and read.images is not None:
        arrays["images"] = read.images  # type: ignore[assignment]
    save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, folder / _ARRAYS)
    stored = folder.stored(_ARRAYS)
    counts = len(read.calibration), len(read.held_out)
    random = given.source is None
    shape = arrays["images"].shape[1:] if "images" in arrays else None
    labelled = read.labels is not None
    return Samples(stored.digest, stored, counts, labelled, random, shape, read.classes, read.notes)


def open_samples(samples: Samples, path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file that ``prepare_samples`` wrote."""
    from safetensors.numpy import load_file

    arrays: dict[str, NDArray[Any]] = load_file(path)
    return arrays


def _random(model: GivenModel) -> _Read:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((2 * RANDOM, *model.input.shape[1:]), dtype=np.float32)
    return _Read(values[:RANDOM], values[RANDOM:])


def _read(path: Path, feeding: Feeding, model: GivenModel) -> _Read:
    if not path.exists():
        raise DataError(f"there are no data at '{path}'", fix="check the path")
    if path.suffix in (".npy", ".npz"):
        arrays = _arrays(path)
        if not {"train_x", "train_bytes"} & set(arrays):
            return _of_arrays(path, arrays, feeding, model)
    elif path.is_file() and not path.name.endswith(".tar.gz"):
        raise DataError(
            f"'{path}' is no data that can be read",
            why="data are .npz or .npy files, or folders",
            fix="see docs/guides/compile-a-model.md",
        )
    kind = _kind(path)
    if kind is None:
        return _of_images(path, feeding, model)
    config = DataConfig(
        kind=kind,
        path=path,
        train_limit=4 * CALIBRATION,
        test_limit=HELD_OUT,
        duplicates="keep",
        broken="skip",
        image_size=_square(model),
    )
    dataset = load(config, seed=0)
    train, test = dataset.train, dataset.test
    order = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    images = _as_taken(test.images, model)
    return _Read(
        _fed(train.images[order], feeding, model),
        _fed(images, feeding, model),
        train.labels[order],
        test.labels,
        images,
        dataset.classes,
        dataset.notes,
    )


def _kind(path: Path) -> Any:
    """The ``kind`` of a recipe's data that lies there; ``None`` for a folder of images without classes."""
    if path.is_file():
        return "npz" if path.suffix == ".npz" else "cifar"
    names = {each.name for each in path.iterdir()}
    if names & {"dataset_dict.json", "dataset_info.json", "state.json"}:
        return "huggingface"
    if any("-ubyte" in name for name in names):
        return "mnist"
    if names & {"data_batch_1", "data_batch_1.bin", "test_batch", "cifar-10-batches-py", "cifar-100-python"}:
        return "cifar"
    has_images = any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    return None if has_images else "folder"


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return arrays_from(path) if path.suffix == ".npz" else {"x": array_from(path)}
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path}' cannot be read", why=cause_of(error), fix="write it with numpy.savez or numpy.save"
        ) from error


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]], feeding: Feeding, model: GivenModel) -> _Read:
    names = ("x", "images", model.input.name)
    values = next((arrays[name] for name in names if name in arrays), None)
    if values is None or values.ndim < 2 or len(values) < 2:
        raise DataError(
            f"'{path}' has no inputs of {model.name}",
            why=f"it holds {', '.join(f'{name} {each.shape}' for name, each in arrays.items()) or 'nothing'}",
            fix=f"store them as 'x' or '{model.input.name}', a row for each, and labels as 'y'",
        )
    labels = arrays.get("y", arrays.get("labels"))
    if labels is not None and (labels.shape != (len(values),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"the labels in '{path}' do not fit",
            why=f"there are {len(values)} inputs, and the labels are {labels.dtype} of shape {labels.shape}",
            fix="store one whole number for each input, counted from 0",
        )
    order = np.random.default_rng(0).permutation(len(values))
    first, second = _parts(order)
    return _Read(
        _fed(values[first], feeding, model),
        _fed(values[second], feeding, model),
        None if labels is None else labels[first].astype(np.int64),
        None if labels is None else labels[second].astype(np.int64),
        _as_taken(values[second], model) if values.dtype == np.uint8 else None,
    )


def _of_images(path: Path, feeding: Feeding, model: GivenModel) -> _Read:
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES)
    order = np.random.default_rng(0).permutation(len(files))
    first, second = _parts(order)
    chosen = [files[n] for n in (*first, *second)]
    decoded = decode_all(chosen, [each.name for each in chosen], _square(model))
    if len(decoded.pixels) < 2:
        raise DataError(
            f"there are not enough images in '{path}'", why=", ".join(decoded.broken[:5]), fix="give more"
        )
    notes = (f"left out {len(decoded.broken)} images that cannot be decoded",) if decoded.broken else ()
    fed = _fed(decoded.pixels, feeding, model)
    count = max(1, int((decoded.rows < len(first)).sum()))
    return _Read(fed[:count], fed[count:], notes=notes)


def _parts(order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to calibrate with, at most half, and rows that are held out."""
    count = min(CALIBRATION, math.ceil(len(order) / 2))
    return order[:count], order[count : count + HELD_OUT]


def _square(model: GivenModel) -> int | None:
    """Side of the images that the model takes, if they are square."""
    size = _image_size(model)
    return size[0] if size is not None and size[0] == size[1] else None


def _image_size(model: GivenModel) -> tuple[int, int, int] | None:
    """Height, width and channels of the images that the model takes, if it takes images."""
    shape = model.input.shape
    if len(shape) != 4:
        return None
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        return shape[1], shape[2], shape[3]
    return (shape[2], shape[3], shape[1]) if shape[1] in (1, 3) else None


def _fed(values: NDArray[Any], feeding: Feeding, model: GivenModel) -> NDArray[np.float32]:
    """Inputs as the model takes them.

    Raises:
        DataError: they have another shape or type.
    """
    wanted = model.input.shape[1:]
    if values.dtype == np.uint8:
        images = _as_taken(values, model)
        fed = feeding(images, images.shape[3])
        return fed if wanted == images.shape[1:] else np.ascontiguousarray(fed.transpose(0, 3, 1, 2))
    if values.shape[1:] != wanted or values.dtype.kind != "f":
        raise _misfit(values, model, "floating point numbers are given to the model as they are")
    found: NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError("the data hold NaN or infinity", fix="leave these inputs out")
    return found


def _as_taken(values: NDArray[np.uint8], model: GivenModel) -> NDArray[np.uint8]:
    """Images ``(N, H, W, C)`` in the size and with the channels that the model takes.

    Raises:
        DataError: they cannot be brought to that.
    """
    size = _image_size(model)
    images = values[..., None] if values.ndim == 3 else values
    if size is None or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise _misfit(values, model, "bytes are images (N, height, width, channels) with 1 or 3 channels")
    height, width, channels = size
    if images.shape[1:3] != (height, width) and height == width:
        images = resize_all(images, height)
    images = with_channels(images, channels)
    if images.shape[1:] != size:
        raise _misfit(values, model, f"images of {height}x{width} with {channels} channels are needed")
    return images


def _misfit(values: NDArray[Any], model: GivenModel, why: str) -> DataError:
    return DataError(
        f"the data do not fit {model.name}",
        why=f"its input is {' x '.join(map(str, model.input.shape[1:]))}, the data are rows of "
        f"{' x '.join(map(str, values.shape[1:]))} {values.dtype}; {why}",
        fix="give data of that shape",
    )


def _check(read: _Read, path: Path, model: GivenModel) -> None:
    if not len(read.held_out):
        raise DataError(
            f"there is one input in '{path}'",
            why="some are calibrated with, others compared",
            fix="give more",
        )
    labels = read.calibration_labels
    if labels is None or read.labels is None:
        return
    if len(np.unique(labels)) == 1:
        raise DataError(
            f"all inputs in '{path}' that would be calibrated with are of class {labels[0]}",
            why="the ranges of activations would be those of one class",
            fix="give inputs of all classes",
        )
    if model.classes is None:
        raise DataError(
            f"'{path}' has labels, but {model.name} gives no scores of classes",
            why=f"its output is {' x '.join(map(str, model.outputs[0].shape))}",
            fix="give the inputs without labels",
        )
    if min(read.labels.min(), labels.min()) < 0 or max(read.labels.max(), labels.max()) >= model.classes:
        raise DataError(
            f"labels in '{path}' run from {min(read.labels.min(), labels.min())} to "
            f"{max(read.labels.max(), labels.max())}, but {model.name} knows {model.classes} classes",
            fix="count labels from 0, in the order of the model's outputs",
        )
