"""Stage ``quantise``: what the student loses in int8, and fine-tuning where that is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from devices.host import temporary_folder
from devices.words import count_of
from pipeline.compile import compile_artifact
from pipeline.data.base import Dataset
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.errors import VerificationError
from pipeline.export.base import Format
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, soft_targets
from pipeline.stages.latency.targets import BoundTarget, OutputsPlace, outputs_place
from pipeline.stages.services import Services
from pipeline.stages.student.compile import Calibration
from pipeline.stages.student.distil import open_student
from pipeline.target_verdict import LabelledImages, predict_split
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = "student.safetensors"


@dataclass(frozen=True)
class QuantiseInput:
    """A trained student, the targets that want it in int8, and what may be done for its accuracy there.

    Attributes:
        exported: the student in float, by format.
        targets: in int8.
        exporters: by target.
        outputs: where the outputs are taken of targets that give none, by target.
        calibration: with the data.
        training: of the fine-tuning; ``None`` for none.
        max_drop: points of accuracy on the validation slice that may be lost without fine-tuning.
    """

    plan: SpacePlan
    architecture: Architecture
    weights: StoredFile
    exported: Mapping[Format, StoredFile]
    targets: tuple[BoundTarget, ...]
    exporters: Mapping[str, Any]
    outputs: Mapping[str, OutputsPlace]
    calibration: Calibration
    training: DistillationSettings | None
    max_drop: float
    seed: int
    teacher: TeacherSummary | None = by_digest()


@dataclass(frozen=True)
class Int8Figures:
    """A student in int8 as its runtime computes it on the validation slice.

    Attributes:
        accuracy: the task's metric.
        agreement: how far it says the same as the student in float.
    """

    accuracy: float
    agreement: float


@dataclass(frozen=True)
class Quantised:
    """What ships in int8; accuracies are on the validation slice.

    Attributes:
        weights: in float, from which int8 is made.
        models: the same, exported in float, by format.
        float_accuracy: of the student as it was distilled.
        post_training: its figures in int8 as it was distilled, by target.
        fine_tuned: its figures in int8 after fine-tuning, by target; empty where that was not done.
        ships_fine_tuned: whether the fine-tuned weights are those that ship.
        history: of the fine-tuning.
    """

    weights: StoredFile
    models: Mapping[Format, StoredFile]
    float_accuracy: float
    post_training: Mapping[str, Int8Figures]
    fine_tuned: Mapping[str, Int8Figures]
    ships_fine_tuned: bool
    history: tuple[EpochRecord, ...] = ()

    @property
    def figures(self) -> Mapping[str, Int8Figures]:
        """Of what ships, by target."""
        return self.fine_tuned if self.ships_fine_tuned else self.post_training

    @property
    def accuracy(self) -> float:
        """The lowest of what ships."""
        return _lowest(self.figures)

    def drop(self, target: str) -> float:
        """Points of accuracy that are lost on a target."""
        return 100 * (self.float_accuracy - self.figures[target].accuracy)

    def words(self, target: str) -> str:
        """Accuracy in float and in int8, in words."""
        parts = [f"{self.float_accuracy:.2%} in float, {self.post_training[target].accuracy:.2%} in int8"]
        if self.fine_tuned:
            found = f"{self.fine_tuned[target].accuracy:.2%} after {count_of(len(self.history), 'epoch')}"
            kept = "" if self.ships_fine_tuned else ", not kept"
            parts.append(f"{found} of fine-tuning{kept}")
        return ", ".join(parts)


def _told(given: QuantiseInput, value: Quantised) -> Sequence[str]:
    lines = []
    for target in given.targets:
        drop = value.drop(target.name)
        beyond = f"; LOSES {drop:.2f} POINTS, more than {given.max_drop:g}" if drop > given.max_drop else ""
        lines.append(
            f"quantise     {target.name}: {value.words(target.name)}, on the validation slice{beyond}"
        )
    return lines


@stage("quantise", packages=("torch",), tell=_told)
def quantise_student(given: QuantiseInput, folder: StageFolder, services: Services) -> Quantised:
    """Take the accuracy in int8 as the runtimes compute it, and fine-tune where it is too low.

    After a kill the fine-tuning goes on from its last epoch.

    Raises:
        ExportError: the student cannot be quantised.
        MeasurementError: it does not run on its target.
        VerificationError: the fine-tuning diverges, or the student cannot be fine-tuned.
    """
    from safetensors.torch import save

    from pipeline.distill.training import predict_logits
    from pipeline.export.network import export_networks

    student = open_student(given.plan, given.architecture, given.weights, folder)
    dataset = open_data(given.calibration.data, folder)
    validation = dataset.validation
    outputs = predict_logits(student, validation, dataset.preprocessing).numpy()
    in_float = dataset.task.value(outputs, validation.labels)
    before = _figures(given, given.exported, outputs, dataset, folder)
    unchanged = Quantised(given.weights, given.exported, in_float, before, {}, False)
    allowed = in_float - given.max_drop / 100
    if given.training is None or unchanged.accuracy >= allowed:
        return unchanged
    checkpoint = folder / "checkpoint.pt"
    history = _fine_tuned(given, student, folder, services, goal=allowed, checkpoint=checkpoint)
    write_atomically(folder / _WEIGHTS, save(student.state_dict()))
    for fmt in given.exported:
        export_networks({folder / _model(fmt): student}, given.plan.input_shape, fmt)
    models = {fmt: folder.stored(_model(fmt)) for fmt in given.exported}
    after = _figures(given, models, outputs, dataset, folder)
    checkpoint.unlink(missing_ok=True)
    if _lowest(after) <= unchanged.accuracy:
        return Quantised(given.weights, given.exported, in_float, before, after, False, history)
    return Quantised(folder.stored(_WEIGHTS), models, in_float, before, after, True, history)


def _figures(
    given: QuantiseInput,
    models: Mapping[Format, StoredFile],
    outputs: NDArray[np.float32],
    dataset: Dataset,
    folder: StageFolder,
) -> dict[str, Int8Figures]:
    """Quantise exported files as the stage ``compile`` will, and run them on the validation slice.

    Args:
        given: of the stage.
        models: in float, by format.
        outputs: of the student in float.
        dataset: with the slice.
        folder: of the stage.
    """
    found, validation = {}, dataset.validation
    with temporary_folder("quantise") as temporary:
        for number, target in enumerate(given.targets):
            source, layout = folder.find(models[target.format.in_float]), target.format.layout
            inputs = given.calibration.inputs(folder, layout)
            artifact = compile_artifact(source, target.target, temporary / str(number), calibration=inputs)
            place = outputs_place(target, given.outputs)
            shown = LabelledImages(validation, dataset.preprocessing, layout)
            answers = predict_split(artifact.path, shown, place)
            found[target.name] = Int8Figures(
                dataset.task.value(answers, validation.labels), dataset.task.agreement(answers, outputs)
            )
    return found


def _fine_tuned(
    given: QuantiseInput,
    student: nn.Module,
    folder: StageFolder,
    services: Services,
    *,
    goal: float,
    checkpoint: Path,
) -> tuple[EpochRecord, ...]:
    import torch

    from pipeline.distill.fake_quantisation import fine_tune_in_int8

    assert given.training is not None
    dataset = open_data(given.calibration.data, folder)
    soft = None
    if given.teacher is not None:
        soft = soft_targets(given.teacher, folder, dataset, given.training)
    diverged = VerificationError(
        "fine-tuning the student for int8 diverged",
        fix="lower distil.learning_rate, or set compile.fine_tuning_epochs = 0",
    )
    with (
        divergence_is(diverged),
        services.reporter.task("fine-tuning the student for int8", "epochs") as advance,
    ):
        result = fine_tune_in_int8(
            student,
            dataset,
            given.training,
            seed=given.seed,
            calibration=torch.from_numpy(given.calibration.inputs(folder, "NCHW")),
            goal=goal,
            targets=soft,
            checkpoint=checkpoint,
            on_epoch=lambda done, total, record: advance(done, total),
            tell=services.reporter.note,
        )
    return result.history


def _lowest(figures: Mapping[str, Int8Figures]) -> float:
    return min(each.accuracy for each in figures.values())


def _model(fmt: Format) -> str:
    return f"student{fmt.suffix}"
