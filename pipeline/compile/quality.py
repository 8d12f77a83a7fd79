"""How far a variant's outputs are from the model's, and what that costs in accuracy. Stage ``outputs``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.inventory import HOST
from devices.measurement import DeviceIdentity, RuntimeIdentity
from devices.measuring import probe
from devices.requests import outputs_target, predict_all
from devices.target import Target
from pipeline.compile.model import GivenModel
from pipeline.compile.samples import Samples, inputs_in, open_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.tasks import AnyTask
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

_OUTPUTS = "outputs.npy"


@dataclass(frozen=True)
class OutputsInput:
    """A file, where it runs, and on what.

    Attributes:
        artifact: the file.
        target: that runs it.
        runtime: that stands behind the target now.
        device: likewise.
        turned: the file takes channels last where the samples have them first.
        samples: of which those that are held out are taken.
    """

    artifact: StoredFile
    target: Target
    runtime: RuntimeIdentity
    device: DeviceIdentity
    turned: bool
    samples: Samples = by_digest()


@dataclass(frozen=True)
class Outputs:
    """All outputs for every held-out sample, flattened and one behind the other, in a file.

    Attributes:
        array: ``(N, sum of sizes)`` float32.
        sizes: values of each output.
    """

    array: StoredFile
    sizes: tuple[int, ...]


@stage("outputs", packages=("numpy",))
def take_outputs(given: OutputsInput, folder: StageFolder, services: CompileServices) -> Outputs:
    """Run a file over the held-out samples.

    Raises:
        MeasurementError: it cannot be run.
        TargetError: the target cannot be reached.
    """
    arrays = open_samples(given.samples, folder.find(given.samples.arrays), "held_out")
    inputs = inputs_in(arrays, "held_out")
    inputs = tuple(map(channels_last, inputs)) if given.turned else inputs
    with services.reporter.task(f"running the held-out inputs on {given.target}", ""):
        outputs = predict_all(folder.find(given.artifact), inputs, given.target)
    packed = io.BytesIO()
    np.save(packed, np.concatenate(outputs, axis=1), allow_pickle=False)
    write_atomically(folder / _OUTPUTS, packed.getbuffer())
    return Outputs(folder.stored(_OUTPUTS), tuple(each.shape[1] for each in outputs))


def outputs_in(outputs: Outputs, path: Path) -> tuple[NDArray[np.float32], ...]:
    """The outputs ``(N, size)`` of a file that ``take_outputs`` wrote."""
    values = np.load(path, allow_pickle=False)
    return tuple(np.split(values, np.cumsum(outputs.sizes)[:-1], axis=1))


def channels_last(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(N, C, H, W)`` to ``(N, H, W, C)``."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class Quality:
    """A variant's outputs beside the model's own on the held-out samples.

    Attributes:
        max_abs: largest absolute difference of an output; infinite where one is no number.
        max_rel: the largest over samples and outputs of (largest difference / largest absolute value of that
            output of the model).
        agreement: how far the first output of both says the same, 1 if it does: of classes, the share of the
            samples to which both give the same. ``None`` where no task tells what the output means.
        accuracy: the metric of the task; ``None`` without labels.
        reference_accuracy: likewise of the model itself.
        samples: how many were compared.
    """

    max_abs: float | None
    max_rel: float | None
    agreement: float | None
    accuracy: float | None
    reference_accuracy: float | None
    samples: int

    @property
    def finite(self) -> bool:
        """All outputs are numbers."""
        return self.max_abs is not None

    @property
    def drop(self) -> float | None:
        """Points of the metric that the variant loses; without labels, what is missing to full agreement.

        Of classes that is the share of the samples whose class changes: no more can be lost. ``None`` where
        nothing tells.
        """
        if self.accuracy is not None and self.reference_accuracy is not None:
            return 100 * (self.reference_accuracy - self.accuracy)
        return None if self.agreement is None else 100 * (1 - self.agreement)


def outputs_input(
    file: StoredFile, takes: ModelFormat, target: Target, model: GivenModel, samples: Samples
) -> OutputsInput:
    """The input of ``take_outputs``, with the place where the outputs of a file are taken.

    Args:
        file: that runs.
        takes: format of the model that it was made of.
        target: where it runs.
        model: that it was made of.
        samples: on which.

    Raises:
        TargetError: the outputs can be taken nowhere.
    """
    where = outputs_target(target, file.suffix)
    runtime, device = probe(where)
    return OutputsInput(file, where, runtime, device, model.turned(takes), samples)


def quality_of(
    expected: Sequence[NDArray[np.float32]],
    actual: Sequence[NDArray[np.float32]],
    labels: NDArray[Any] | None,
    task: AnyTask | None,
) -> Quality:
    """Compare outputs ``(N, size)``, flattened per sample.

    Args:
        expected: of the model.
        actual: of the variant.
        labels: of the samples.
        task: what labels and the model's first output mean; ``None`` where nothing tells. Where an output is
            no number, nothing is judged by it.
    """
    count = len(expected[0])
    finite = [each.shape for each in expected] == [each.shape for each in actual]
    finite = finite and all(np.isfinite(each).all() for each in actual)
    absolute = relative = None
    if finite:
        differences = [
            np.abs(theirs.astype(np.float64) - mine).max(axis=1)
            for theirs, mine in zip(expected, actual, strict=True)
        ]
        scales = [np.maximum(np.abs(each).max(axis=1), np.finfo(np.float32).tiny) for each in expected]
        absolute = max(float(each.max()) for each in differences)
        relative = max(float((each / s).max()) for each, s in zip(differences, scales, strict=True))
    agreement = accuracy = reference = None
    if finite and task is not None:
        agreement = task.agreement(actual[0], expected[0])
        if labels is not None:
            accuracy, reference = task.value(actual[0], labels), task.value(expected[0], labels)
    return Quality(
        absolute,
        relative,
        agreement,
        accuracy,
        reference,
        count,
    )


def reference_target(fmt: ModelFormat) -> Target:
    """Where the model as it came is run to know its own outputs: on this machine."""
    return Target(HOST.name, fmt.runtime)
