"""What each operator of a model loses alone in int8: stage ``sensitivity``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from devices.inventory import HOST
from devices.target import Target
from pipeline.compile.making import calibration_of
from pipeline.compile.model import GivenModel
from pipeline.compile.samples import Samples
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import CompileTask, ModelFormat, litert, onnxruntime
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, installed, stage

FINDERS: Mapping[ModelFormat, tuple[Callable[[CompileTask], Any], tuple[str, ...]]] = {
    ModelFormat.ONNX: (onnxruntime.find_sensitive, onnxruntime.PACKAGES),
    ModelFormat.LITERT: (litert.find_sensitive, litert.PACKAGES),
}
"""By the format of the model: what measures it, and the packages that decide the result."""


@dataclass(frozen=True)
class SensitivityInput:
    """Which model, and the samples to calibrate with.

    Attributes:
        model: the file.
        takes: its format.
        versions: of the packages that decide the result.
        turned: the file takes channels last where the samples have them first.
        input_names: of the model, in its order.
        samples: to calibrate and to run.
    """

    model: StoredFile
    takes: ModelFormat
    versions: Mapping[str, str]
    turned: bool
    input_names: tuple[str, ...]
    samples: Samples = by_digest()

    @classmethod
    def of(cls, model: GivenModel, takes: ModelFormat, samples: Samples) -> SensitivityInput:
        """With the packages as they are now."""
        names = tuple(each.name for each in model.inputs)
        versions = installed(FINDERS[takes][1])
        return cls(model.files[takes], takes, versions, model.turned(takes), names, samples)


@dataclass(frozen=True)
class LayerSensitivity:
    """One operator: signal over noise of the model's outputs where it alone is in int8, decibel."""

    name: str
    kind: str
    ratio_db: float


@dataclass(frozen=True)
class Sensitivity:
    """All operators with weights, the most sensitive first."""

    layers: tuple[LayerSensitivity, ...]


@stage("sensitivity")
def measure_sensitivity(
    given: SensitivityInput, folder: StageFolder, services: CompileServices
) -> Sensitivity:
    """Quantise one operator at a time, and compare the outputs with those of the model.

    Raises:
        ExportError: the model cannot be quantised.
    """
    model = folder.find(given.model)
    calibration, shared = calibration_of(given.samples, given.input_names, folder, turned=given.turned)
    target = Target(HOST.name, given.takes.runtime, "int8")
    task = CompileTask(model, target, calibration, shared=shared / given.model.digest[:16])
    with services.reporter.task("measuring how sensitive each operator is to int8", ""):
        found = FINDERS[given.takes][0](task)
    layers = [LayerSensitivity(name, kind, round(ratio, 2)) for name, kind, ratio in found]
    return Sensitivity(tuple(sorted(layers, key=lambda each: each.ratio_db)))
