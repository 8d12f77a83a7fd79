"""Stages ``data`` and ``teacher``: what the run learns from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from devices.digests import file_digest
from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.fingerprint import fingerprint
from pipeline.distill.settings import EpochRecord
from pipeline.stages.context import Context, training_versions

if TYPE_CHECKING:
    from pipeline.distill.targets import SoftTargets
    from pipeline.teachers.teacher import Teacher

_ARRAYS = "dataset.npz"
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataSummary:
    """What there is to know of the data without reading it again; counts are of train, validation, test."""

    name: str
    digest: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    preprocessing: Preprocessing


class Data:
    """The data of a run; the arrays are read when first needed."""

    def __init__(self, summary: DataSummary, folder: Path) -> None:
        self.summary = summary
        self._folder = folder

    @cached_property
    def dataset(self) -> Dataset:
        """All splits, from the work folder."""
        with np.load(self._folder / _ARRAYS, allow_pickle=False) as arrays:
            train, validation, test = (Split(arrays[f"{name}_x"], arrays[f"{name}_y"]) for name in _SPLITS)
        known = self.summary
        return Dataset(known.name, train, validation, test, known.classes, known.preprocessing, known.digest)


def prepare_data(context: Context) -> Data:
    """Read, check and split the data; keep it decoded in the work folder.

    Raises:
        DataError: the data is missing, unreadable or inconsistent.
    """
    config, seed = context.recipe.data, context.recipe.seed

    def compute(folder: Path) -> DataSummary:
        from pipeline.data.loading import load

        dataset = load(config, seed=seed)
        splits = (dataset.train, dataset.validation, dataset.test)
        arrays: dict[str, NDArray[Any]] = {}
        for name, split in zip(_SPLITS, splits, strict=True):
            arrays[f"{name}_x"], arrays[f"{name}_y"] = split.images, split.labels
        np.savez(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]
        return DataSummary(
            dataset.name,
            dataset.digest,
            dataset.classes,
            dataset.input_shape,
            (len(dataset.train), len(dataset.validation), len(dataset.test)),
            dataset.preprocessing,
        )

    inputs = {"config": config.model_dump(mode="json"), "source": fingerprint(config), "seed": seed}
    summary = context.work.stage("data", inputs, DataSummary, compute)
    train, validation, test = summary.counts
    channels, height, width = summary.input_shape
    context.reporter.note(
        f"data         {summary.name}: {train} train, {validation} validation, {test} test images, "
        f"{height}x{width}x{channels}, {len(summary.classes)} classes"
    )
    return Data(summary, context.work.folder_of("data"))


@dataclass(frozen=True)
class TeacherSummary:
    """Who teaches: name, digest of its content, accuracy on the validation slice, training of each member."""

    name: str
    digest: str
    validation_accuracy: float
    members: tuple[tuple[str, tuple[EpochRecord, ...]], ...]


class FrozenTeacher:
    """The teacher of a run; its weights are read when first needed."""

    def __init__(self, summary: TeacherSummary, context: Context, data: Data, folder: Path) -> None:
        self.summary = summary
        self._context, self._data, self._folder = context, data, folder

    @cached_property
    def teacher(self) -> Teacher:
        """The network itself."""
        return _load(self._context, self._data, self._folder)

    def targets(self, dataset: Dataset, augment: str) -> SoftTargets:
        """Soft targets for training on ``dataset``: stored where images never change, else live."""
        from pipeline.distill.targets import LiveTargets, StoredTargets

        if augment == "none":
            return StoredTargets(self.teacher, dataset.train, dataset.preprocessing)
        return LiveTargets(self.teacher)


def prepare_teacher(context: Context, data: Data) -> FrozenTeacher:
    """Load or train the teacher, and check that it fits the data.

    Raises:
        TeacherError: it cannot be loaded, or does not fit the data.
    """

    def compute(folder: Path) -> TeacherSummary:
        from pipeline.distill.training import accuracy

        teacher = _load(context, data, folder)
        dataset = data.dataset
        return TeacherSummary(
            " + ".join(teacher.names),
            teacher.digest,
            accuracy(teacher.module, dataset.validation, dataset.preprocessing),
            tuple((member.name, member.history) for member in teacher.members),
        )

    summary = context.work.stage("teacher", _teacher_inputs(context, data), TeacherSummary, compute)
    context.reporter.note(
        f"teacher      {summary.name}: {summary.validation_accuracy:.2%} on the validation slice"
    )
    return FrozenTeacher(summary, context, data, context.work.folder_of("teacher"))


def _load(context: Context, data: Data, folder: Path) -> Teacher:
    from pipeline.teachers.loading import load_teacher

    with context.reporter.task("training the teacher", "epochs") as advance:
        return load_teacher(
            context.recipe.teacher,
            data.dataset,
            folder=folder,
            seed=context.recipe.seed,
            progress=lambda done, total, _: advance(done, total),
        )


def _teacher_inputs(context: Context, data: Data) -> dict[str, Any]:
    configs = []
    for config in context.recipe.teacher:
        described = config.model_dump(mode="json")
        # Files count by their content, wherever they lie.
        for key in ("weights", "path"):
            path = getattr(config, key, None)
            if path is not None and Path(path).is_file():
                described[key] = file_digest(Path(path))
        configs.append(described)
    return {
        "teachers": configs,
        "data": data.summary.digest,
        "seed": context.recipe.seed,
        "versions": training_versions(),
    }
