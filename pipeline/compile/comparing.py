"""Outputs of variants beside the model's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.errors import LatheError, MeasurementError, PassingMeasurementError
from devices.target import Target
from pipeline.compile.model import GivenModel
from pipeline.compile.quality import (
    OutputsInput,
    Quality,
    outputs_in,
    outputs_input,
    quality_of,
    reference_target,
    take_outputs,
)
from pipeline.compile.samples import Samples, open_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder


@dataclass(frozen=True)
class Untaken:
    """Why the outputs of a file cannot be taken, and whether they may be another time."""

    why: str
    passing: bool = False


class Comparer:
    """Compares files with one model.

    Args:
        model: the model.
        samples: on which.
        folder: of a stage, which finds files.
        services: the work folder, in which outputs are kept.
    """

    def __init__(
        self, model: GivenModel, samples: Samples, folder: StageFolder, services: CompileServices
    ) -> None:
        self._model, self._samples, self._folder, self._services = model, samples, folder, services
        self._expected: tuple[NDArray[np.float32], ...] | None = None

    def compare(self, file: StoredFile, takes: ModelFormat, target: Target) -> Quality | Untaken:
        """Run a file over the held-out samples.

        Args:
            file: a compiled file.
            takes: format of the model that it was made of.
            target: where it runs.

        Raises:
            ExportError: the model itself gives inf or NaN.
            MeasurementError: the model itself cannot be run where its own outputs are taken.
            TargetError: the device went away.
        """
        try:
            asked = self._asked(file, takes, target)
        except LatheError as error:
            return Untaken(_why(error))
        try:
            actual = self._outputs(asked)
        except MeasurementError as error:
            return Untaken(_why(error), isinstance(error, PassingMeasurementError))
        arrays = open_samples(self._samples, self._folder.find(self._samples.arrays), "labels")
        return quality_of(self._reference(target), actual, arrays.get("labels"), self._samples.task)

    def _reference(self, target: Target) -> tuple[NDArray[np.float32], ...]:
        """The model's own outputs, on this machine; of one that is compiled, those on its own target."""
        if self._expected is None:
            fmt = ModelFormat.LITERT if self._model.format is ModelFormat.LITERT else ModelFormat.ONNX
            files = self._model.files
            fmt = fmt if fmt in files else next(iter(files))
            where = target if self._model.compiled else reference_target(fmt)
            asked = self._asked(files[fmt], fmt, where)
            try:
                expected = self._outputs(asked)
            except MeasurementError as error:
                raise type(error)(
                    f"the outputs of {self._model.name} itself cannot be taken on {where}",
                    why=f"{error.what} {error.why}".strip(),
                    fix="give fewer inputs with --data where it lacks time or memory; else repair the model",
                ) from error
            if not all(np.isfinite(each).all() for each in expected):
                raise ExportError(
                    f"{self._model.name} itself gives inf or NaN",
                    why="nothing can be compared with such outputs",
                    fix="give inputs as the model takes them, with --data, --mean and --std, or repair it",
                )
            self._expected = expected
        return self._expected

    def _asked(self, file: StoredFile, takes: ModelFormat, target: Target) -> OutputsInput:
        return outputs_input(file, takes, target, self._model, self._samples)

    def _outputs(self, asked: OutputsInput) -> tuple[NDArray[np.float32], ...]:
        outputs = self._services.work.run(take_outputs, asked, self._services)
        return outputs_in(outputs, self._folder.find(outputs.array))


def _why(error: LatheError) -> str:
    return f"its outputs cannot be taken: {error.what} {error.why}".strip()
