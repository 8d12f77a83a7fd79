"""Inputs for a finished model: some to calibrate with, and others to compare and to take the accuracy on.

Stage ``samples``. What may be given:

- whatever a recipe's ``[data]`` takes: folders of images by class, ``.npz`` with ``train_x`` and so on,
  CIFAR and MNIST as their sites ship them, saved Hugging Face data sets. Calibration is from the train split,
  the rest from the test split;
- a folder of images without classes;
- ``.npz`` with ``x`` and, if there are labels, ``y``, or ``images`` and ``labels`` as bundles have them; or
  ``.npy``. Bytes are images; other numbers are given to the model as they are;
- for a model of several inputs ``.npz`` with an array for each, by its name, and ``y`` if there are labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import array_from, arrays_from
from devices.words import cause_of, count_of
from pipeline.compile.feeding import Feeding, fed, image_size, images_of
from pipeline.compile.model import GivenModel, TensorSpec
from pipeline.compile.services import CompileServices
from pipeline.data.base import Dataset, Split
from pipeline.data.config import DataConfig
from pipeline.data.fingerprint import fingerprint
from pipeline.errors import DataError
from pipeline.memory import gigabytes
from pipeline.tasks import SINGLE_LABEL, AnyTask, Embedding, MultiLabel, Regression, TaskKind
from pipeline.work.canonical import OutsideFile, StoredFile
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

CALIBRATION = 128
"""Inputs to calibrate with: more change no range that matters."""
HELD_OUT = 2000
"""Inputs at most for the accuracy: half a point is then ten of them."""
MOST_BYTES = 1_250_000_000
"""Of inputs that are held out, with their outputs: 2 000 of 224x224 pixels have room."""
RANDOM = 16
_ARRAYS = "samples.safetensors"


@dataclass(frozen=True)
class SamplesInput:
    """Where inputs come from.

    Attributes:
        source: ``None`` for random ones.
        feeding: how images become inputs.
        model: which takes them.
        task: what labels and the model's first output mean.
    """

    source: OutsideFile | None
    feeding: Feeding
    model: GivenModel
    task: TaskKind = "single-label"

    @classmethod
    def of(
        cls, path: Path | None, feeding: Feeding, model: GivenModel, task: TaskKind = "single-label"
    ) -> SamplesInput:
        """With the data as they are now."""
        if path is None:
            return cls(None, feeding, model, task)
        kind: Literal["table", "folder"] = "table" if path.suffix.lower() == ".csv" else "folder"
        digest = fingerprint(DataConfig(kind=kind, path=path))
        return cls(OutsideFile(path, digest), feeding, model, task)


@dataclass(frozen=True)
class Samples:
    """Inputs in a file, as the model takes them.

    Attributes:
        digest: over all of them.
        arrays: ``calibration.N`` and ``held_out.N`` for each input N of the model; if there are labels,
            ``labels`` of what is held out; of images with labels also ``images``, the bytes of what is held
            out.
        counts: inputs to calibrate with, and held out.
        labelled: there are labels.
        random: there are no data.
        image_shape: height, width and channels of ``images``; ``None`` if there are none.
        classes: names of the labels, in their order; empty where they have none.
        notes: what there is to say of them.
        task: what labels and the model's first output mean; ``None`` where that is no row of class scores.
            Numbers of a regression are in the unit of the data.
    """

    digest: str
    arrays: StoredFile
    counts: tuple[int, int]
    labelled: bool
    random: bool
    image_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    task: AnyTask | None = SINGLE_LABEL


@dataclass(frozen=True, eq=False)
class _Read:
    """What was read: an array for each input of the model, in two parts, and labels of either if any."""

    calibration: tuple[NDArray[Any], ...]
    held_out: tuple[NDArray[Any], ...]
    calibration_labels: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    images: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@stage("samples", packages=("numpy", "pillow", "datasets"))
def prepare_samples(given: SamplesInput, folder: StageFolder, services: CompileServices) -> Samples:
    """Read, check and split the inputs.

    Raises:
        DataError: the data are missing, of another shape than the model's input, of one class, or too few.
    """
    from safetensors.numpy import save

    model, task = given.model, _task_of(given)
    if given.source is None:
        read = _random(model)
    else:
        with services.reporter.task("reading the data", ""):
            read = _read(given.source.path, given)
        _check(read, given.source.path, model, task)
    arrays: dict[str, NDArray[Any]] = {
        f"{part}.{number}": values
        for part, inputs in (("calibration", read.calibration), ("held_out", read.held_out))
        for number, values in enumerate(inputs)
    }
    if read.labels is not None:
        arrays["labels"] = read.labels
    if read.labels is not None and read.images is not None:
        arrays["images"] = read.images
    contiguous = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
    write_atomically(folder / _ARRAYS, save(contiguous))
    stored = folder.stored(_ARRAYS)
    counts = len(read.calibration[0]), len(read.held_out[0])
    random = given.source is None
    shape = arrays["images"].shape[1:] if "images" in arrays else None
    labelled = read.labels is not None
    return Samples(stored.digest, stored, counts, labelled, random, shape, read.classes, read.notes, task)


def _task_of(given: SamplesInput) -> AnyTask | None:
    """The task, where the model's first output can be meant for it."""
    model, kind = given.model, given.task
    if kind == "single-label":
        return None if model.classes is None else SINGLE_LABEL
    if model.width is None:
        raise DataError(
            f"{model.name} is not for --task {kind}",
            why=f"its output is {' x '.join(map(str, model.outputs[0].shape))}, not one row of numbers",
            fix="leave the option out",
        )
    if kind == "regression":
        return Regression((0.0,) * model.width, (1.0,) * model.width)
    return MultiLabel() if kind == "multi-label" else Embedding()


def open_samples(samples: Samples, path: Path, part: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of a file that ``prepare_samples`` wrote, or those whose names begin with ``part``."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as stored:
        return {name: stored.get_tensor(name) for name in list(stored.keys()) if name.startswith(part)}


def inputs_in(
    arrays: dict[str, NDArray[Any]], part: Literal["calibration", "held_out"]
) -> tuple[NDArray[Any], ...]:
    """Of what ``open_samples`` gave, the arrays of one part, in the order of the model's inputs."""
    count = sum(name.startswith(part) for name in arrays)
    return tuple(arrays[f"{part}.{number}"] for number in range(count))


def _random(model: GivenModel) -> _Read:
    """Standard normal values, and zeros and ones where a model takes whole numbers."""
    generator = np.random.default_rng(0)

    def values(spec: TensorSpec) -> NDArray[Any]:
        shape = (2 * RANDOM, *spec.shape[1:])
        if spec.is_float:
            return generator.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
        return generator.integers(0, 2, shape).astype(spec.dtype)

    made = [values(spec) for spec in model.inputs]
    return _Read(tuple(each[:RANDOM] for each in made), tuple(each[RANDOM:] for each in made))


def _read(path: Path, asked: SamplesInput) -> _Read:
    feeding, model = asked.feeding, asked.model
    if not path.exists():
        raise DataError(f"there are no data at '{path}'", fix="check the path")
    if path.is_file() and path.suffix.lower() in (".npy", ".npz"):
        arrays = arrays_of_file(path)
        if len(model.inputs) > 1 or not {"train_x", "train_bytes"} & set(arrays):
            return _of_arrays(path, arrays, asked)
    elif path.is_file() and not path.name.lower().endswith((".tar.gz", ".tgz", ".csv")):
        raise DataError(
            f"'{path}' is no data that can be read",
            why="data are .npz, .npy or .csv files, or folders",
            fix="see docs/guides/compile-a-model.md",
        )
    if len(model.inputs) > 1:
        raise DataError(
            f"'{path}' has one input, {model.name} takes {len(model.inputs)}",
            why=f"they are {', '.join(each.name for each in model.inputs)}",
            fix="give an .npz file with an array for each, by its name",
        )
    (entry,) = model.inputs
    size = image_size(entry)
    if size is None:
        raise DataError(
            f"'{path}' has images, and {model.name} takes none",
            why=f"its input is {' x '.join(map(str, entry.shape[1:]))}",
            fix="give its inputs in an .npz or .npy file",
        )
    kind = kind_of_data(path)
    if kind is None:
        return _of_images(path, size[:2], feeding, model)
    dataset = dataset_at(path, kind, entry, task=asked.task, train_limit=4 * CALIBRATION)
    train = dataset.train
    test = dataset.test.first(held_out_limit(model))
    order = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    images = images_of(test.images, model, entry)
    return _Read(
        (fed(train.images[order], feeding, model, entry),),
        (fed(images, feeding, model, entry),),
        labels_of(train)[order],
        labels_of(test),
        images if entry.is_float else None,
        dataset.classes,
        (*dataset.notes, *_few_held_out(len(dataset.test), model)),
    )


def labels_of(split: Split) -> NDArray[Any]:
    """The labels of a data set as its source has them: numbers of a regression in their own unit."""
    return split.task.in_units(split.labels) if isinstance(split.task, Regression) else split.labels


def dataset_at(path: Path, kind: Any, entry: TensorSpec, *, task: TaskKind, train_limit: int) -> Dataset:
    """Data as a recipe takes them, of which the test split is held out.

    Args:
        path: where they lie.
        kind: as ``kind_of_data`` tells.
        entry: the model's input.
        task: what the labels mean.
        train_limit: images for train and validation together, at most.

    Raises:
        DataError: they cannot be read, or have labels of another task.
    """
    from pipeline.data.loading import load

    if task in ("multi-label", "regression") and kind not in ("table", "npz"):
        raise DataError(
            f"'{path}' has a class for each image, and the task is {task}",
            fix="give a .csv table or an .npz file; see docs/guides/other-tasks.md",
        )
    size = image_size(entry)
    try:
        config = DataConfig(
            kind=kind,
            path=path,
            task=task,
            train_limit=train_limit,
            test_limit=HELD_OUT,
            duplicates="keep",
            broken="skip",
            image_size=size and size[:2],
        )
    except ValueError as error:
        raise DataError(
            f"images in '{path}' cannot be brought to the size of the input",
            why=f"it is {' x '.join(map(str, entry.shape[1:]))}; sides of images have 4 to 4096 pixels",
            fix="give the inputs in an .npz or .npy file",
        ) from error
    return load(config, seed=0)


def kind_of_data(path: Path) -> Any:
    """The ``kind`` of a recipe's data that lies there; ``None`` for a folder of images without classes."""
    if path.is_file():
        return {".npz": "npz", ".csv": "table"}.get(path.suffix.lower(), "cifar")
    from pipeline.data.images import IMAGE_SUFFIXES

    names = {each.name for each in path.iterdir()}
    if names & {"dataset_dict.json", "dataset_info.json", "state.json"}:
        return "huggingface"
    if any("-ubyte" in name for name in names):
        return "mnist"
    if names & {"data_batch_1", "data_batch_1.bin", "test_batch", "cifar-10-batches-py", "cifar-100-python"}:
        return "cifar"
    has_images = any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    return None if has_images else "folder"


def arrays_of_file(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name; that of an ``.npy`` file is called ``x``.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return arrays_from(path) if path.suffix.lower() == ".npz" else {"x": array_from(path)}
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path}' cannot be read", why=cause_of(error), fix="write it with numpy.savez or numpy.save"
        ) from error


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]], asked: SamplesInput) -> _Read:
    feeding, model = asked.feeding, asked.model
    given = [array_of_input(each, path, arrays, model) for each in model.inputs]
    count = len(given[0])
    if any(len(each) != count for each in given):
        raise DataError(
            f"'{path}' does not hold as many rows for every input",
            why=", ".join(f"{s.name}: {len(each)}" for s, each in zip(model.inputs, given, strict=True)),
            fix="store a row of each array for each inference",
        )
    others = {name: each for name, each in arrays.items() if name not in [spec.name for spec in model.inputs]}
    labels = labels_in(others, count, path, asked.task)
    first, second = parts_of(np.random.default_rng(0).permutation(count), model)

    def fed_rows(rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        parts = zip(model.inputs, given, strict=True)
        return tuple(fed(values[rows], feeding, model, spec) for spec, values in parts)

    entry = model.inputs[0]
    images = len(given) == 1 and given[0].dtype == np.uint8 and entry.is_float
    return _Read(
        fed_rows(first),
        fed_rows(second),
        None if labels is None else labels[first],
        None if labels is None else labels[second],
        images_of(given[0][second], model, entry) if images else None,
        tuple(map(str, others["classes"].reshape(-1))) if "classes" in others else (),
        _few_held_out(count - len(first), model),
    )


def labels_in(arrays: dict[str, NDArray[Any]], count: int, path: Path, task: TaskKind) -> NDArray[Any] | None:
    """The labels of so many inputs, ``(N,)`` int64 or, of several labels or numbers, ``(N, K)`` float32.

    Raises:
        DataError: they are of another kind.
    """
    labels = arrays.get("y", arrays.get("labels"))
    if labels is None:
        return None
    if task in ("single-label", "embedding"):
        fit = labels.shape == (count,) and labels.dtype.kind in "iu"
        wanted, kept = "one whole number for each input, counted from 0", "int64"
    else:
        labels = labels[:, np.newaxis] if labels.ndim == 1 else labels
        fit = labels.ndim == 2 and len(labels) == count and labels.dtype.kind in "biuf"
        wanted, kept = "a row of numbers for each input", "float32"
    if not fit:
        raise DataError(
            f"the labels in '{path}' do not fit",
            why=f"there are {count} inputs, the labels are {labels.dtype} of shape {labels.shape}, and the "
            f"task is {task}",
            fix=f"store {wanted}, or say with --task what they are",
        )
    return labels.astype(kept)


def array_of_input(
    spec: TensorSpec, path: Path, arrays: dict[str, NDArray[Any]], model: GivenModel
) -> NDArray[Any]:
    """The array of one input, by its name; of a model's only input also under other names."""
    names = (spec.name,) if len(model.inputs) > 1 else ("x", "images", spec.name)
    values = next((arrays[name] for name in names if name in arrays), None)
    if values is None or values.ndim < min(2, len(spec.shape)) or len(values) < 2:
        holds = ", ".join(f"{name} {each.shape}" for name, each in arrays.items())
        raise DataError(
            f"'{path}' has no inputs of {model.name}",
            why=f"it holds {holds or 'nothing'}",
            fix=f"store them as {' or '.join(map(repr, names))}, a row for each, and labels as 'y'",
        )
    return values


def _of_images(path: Path, size: tuple[int, int], feeding: Feeding, model: GivenModel) -> _Read:
    from pipeline.data.images import IMAGE_SUFFIXES, decode_all

    files = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES)
    order = np.random.default_rng(0).permutation(len(files))
    first, second = parts_of(order, model)
    chosen = [files[n] for n in (*first, *second)]
    decoded = decode_all(chosen, [each.name for each in chosen], size)
    if len(decoded.pixels) < 2:
        raise DataError(
            f"there are not enough images in '{path}'", why=", ".join(decoded.broken[:5]), fix="give more"
        )
    notes = (f"left out {len(decoded.broken)} images that cannot be decoded",) if decoded.broken else ()
    values = fed(decoded.pixels, feeding, model, model.inputs[0])
    count = max(1, int((decoded.rows < len(first)).sum()))
    notes = (*notes, *_few_held_out(len(files) - len(first), model))
    return _Read((values[:count],), (values[count:],), notes=notes)


def parts_of(order: NDArray[np.int64], model: GivenModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to calibrate with, at most half, and rows that are held out."""
    count = min(CALIBRATION, math.ceil(len(order) / 2))
    return order[:count], order[count : count + held_out_limit(model)]


def held_out_limit(model: GivenModel) -> int:
    """How many inputs are held out at most: fewer where they or their outputs are large."""
    inputs = sum(math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in model.inputs)
    outputs = sum(math.prod(each.shape) * np.dtype(np.float32).itemsize for each in model.outputs)
    return max(1, min(HELD_OUT, MOST_BYTES // (inputs + outputs)))


def _few_held_out(count: int, model: GivenModel) -> tuple[str, ...]:
    """What there is to say where not all of so many inputs are held out because of their size."""
    limit = held_out_limit(model)
    if limit >= min(count, HELD_OUT):
        return ()
    room = gigabytes(MOST_BYTES)
    return (
        f"{limit} of {count_of(count, 'input')} are held out: with their outputs no more fit into {room}",
    )


def _check(read: _Read, path: Path, model: GivenModel, task: AnyTask | None) -> None:
    if not len(read.held_out[0]):
        raise DataError(
            f"there is one input in '{path}'",
            why="some are calibrated with, others compared",
            fix="give more",
        )
    labels = read.calibration_labels
    if labels is None or read.labels is None:
        return
    if task is not None and task.kind in ("multi-label", "regression"):
        _check_rows(np.concatenate([labels, read.labels]), path, model, task)
        return
    if len(np.unique(labels)) == 1:
        raise DataError(
            f"all inputs in '{path}' that would be calibrated with are of class {labels[0]}",
            why="the ranges of activations would be those of one class",
            fix="give inputs of all classes",
        )
    if task is not None and task.kind == "embedding":
        if np.unique(read.labels, return_counts=True)[1].max() < 2:
            raise DataError(
                f"no two of the {count_of(len(read.labels), 'input')} held out have the same label",
                why="an embedding is good if inputs of the same label are near each other",
                fix="give more inputs for each label",
            )
        return
    if model.classes is None:
        raise DataError(
            f"'{path}' has labels, but {model.name} gives no scores of classes",
            why=f"its output is {' x '.join(map(str, model.outputs[0].shape))}",
            fix="give the inputs without labels, or say with --task what they are",
        )
    if min(read.labels.min(), labels.min()) < 0 or max(read.labels.max(), labels.max()) >= model.classes:
        raise DataError(
            f"labels in '{path}' run from {min(read.labels.min(), labels.min())} to "
            f"{max(read.labels.max(), labels.max())}, but {model.name} knows {model.classes} classes",
            fix="count labels from 0, in the order of the model's outputs",
        )


def _check_rows(labels: NDArray[np.float32], path: Path, model: GivenModel, task: AnyTask) -> None:
    """Of several labels or numbers: a number for each of the model's, finite; of labels 0 or 1."""
    if labels.shape[1] != model.width:
        raise DataError(
            f"'{path}' has {count_of(labels.shape[1], 'label')} for each input, {model.name} gives "
            f"{count_of(model.width or 0, 'number')}",
            fix="give a label for each number, in the order of the model's output",
        )
    if not np.isfinite(labels).all():
        raise DataError(f"labels in '{path}' are NaN or infinite", fix="leave these inputs out")
    if task.kind == "multi-label" and not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"the labels in '{path}' are not all 0 or 1",
            why="with --task multi-label each says whether an input has that label",
            fix="store 0 or 1, or give --task regression",
        )
