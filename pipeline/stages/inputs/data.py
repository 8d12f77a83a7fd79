"""Stage ``data``: read, checked, split, and kept decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.config import DataConfig
from pipeline.data.fingerprint import fingerprint
from pipeline.stages.services import Services
from pipeline.tasks import SINGLE_LABEL, AnyTask
from pipeline.work.canonical import OutsideFile, StoredFile
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

_LABELS = "labels.safetensors"
_SHOWN = 20
_MEANING = {
    "single-label": "classes",
    "multi-label": "labels",
    "regression": "numbers",
    "embedding": "classes",
}


@dataclass(frozen=True)
class DataInput:
    """What is read, and how.

    Attributes:
        config: of the recipe, apart from the path.
        source: the file or folder, by its fingerprint; of data that come with a package, the package.
        seed: of the splits.
    """

    config: DataConfig
    source: OutsideFile
    seed: int

    @classmethod
    def of(cls, config: DataConfig, seed: int) -> DataInput:
        """Of a recipe's table, with the source as it is now."""
        source = OutsideFile(config.path or Path(config.kind), fingerprint(config))
        return cls(config.model_copy(update={"path": None}), source, seed)


@dataclass(frozen=True)
class DataSummary:
    """What there is to know of the data without reading them.

    Attributes:
        digest: over images, labels, classes and preprocessing.
        counts: of train, validation and test images.
        arrays: the file of all labels; those of the images lie beside it.
        notes: what was left out of the source.
        background: red, green and blue of what lies under transparent pixels of image files.
        task: what labels and outputs mean.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    preprocessing: Preprocessing
    arrays: StoredFile
    notes: tuple[str, ...] = ()
    background: tuple[int, int, int] = (255, 255, 255)
    task: AnyTask = SINGLE_LABEL


def _told(given: DataInput, value: DataSummary) -> Sequence[str]:
    train, validation, test = value.counts
    channels, height, width = value.input_shape
    return [
        f"data         {value.name}: {train} train, {validation} validation, {test} test images, "
        f"{height}x{width}x{channels}",
        f"{_MEANING[value.task.kind]:13}{_order(value.classes)}",
        *(f"             {note}" for note in value.notes),
    ]


def _order(classes: Sequence[str]) -> str:
    """Which number stands for which class: a teacher of another order knows nothing of these data."""
    shown = ", ".join(f"{name}={number}" for number, name in enumerate(classes[:_SHOWN]))
    return shown + (f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else "")


@stage("data", packages=("numpy", "pillow", "datasets"), tell=_told)
def prepare_data(given: DataInput, folder: StageFolder, services: Services) -> DataSummary:
    """Read, check and split the data.

    Raises:
        DataError: the data is missing, unreadable or inconsistent.
    """
    from safetensors.numpy import save

    from pipeline.data.loading import SPLITS, load

    path = given.source.path if given.config.kind != "digits" else None
    config = given.config.model_copy(update={"path": path})
    with services.reporter.task("reading the images", "images") as advance:
        dataset = load(config, seed=given.seed, folder=folder.path, progress=advance)
    splits = dict(zip(SPLITS, (dataset.train, dataset.validation, dataset.test), strict=True))
    write_atomically(folder / _LABELS, save({name: split.labels for name, split in splits.items()}))
    return DataSummary(
        dataset.name,
        dataset.digest,
        dataset.classes,
        dataset.input_shape,
        (len(dataset.train), len(dataset.validation), len(dataset.test)),
        dataset.preprocessing,
        folder.stored(_LABELS),
        dataset.notes,
        given.config.background,
        dataset.task,
    )


def open_data(summary: DataSummary, folder: StageFolder) -> Dataset:
    """All splits; their images are read from the files where they are looked at."""
    path = folder.find(summary.arrays)
    splits = _read(path, summary.arrays.digest, summary.input_shape)
    train, validation, test = (Split(each.images, each.labels, summary.task) for each in splits)
    return Dataset(
        summary.name, train, validation, test, summary.classes, summary.preprocessing, summary.digest
    )


@lru_cache(maxsize=1)
def _read(path: Path, digest: str, input_shape: tuple[int, int, int]) -> tuple[Split, ...]:
    """Every stage of a run reads the same files."""
    from safetensors.numpy import load_file

    from pipeline.data.loading import SPLITS, image_file
    from pipeline.data.store import mapped

    labels, (channels, height, width) = load_file(path), input_shape
    return tuple(
        Split(
            mapped(path.with_name(image_file(name)), len(labels[name]), (height, width, channels)),
            labels[name],
        )
        for name in SPLITS
    )
