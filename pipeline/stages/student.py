"""Stages ``distil``, ``export``, ``compile``, ``verify``: one candidate made real, judged on its targets."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from devices.digests import file_digest
from devices.measurement import Verdict
from devices.target import Target
from pipeline.acceptance import TargetVerdict, verify_artifact
from pipeline.compile import Artifact, compile_artifact
from pipeline.distill.settings import EpochRecord
from pipeline.export.base import Format, exporter_versions, format_of
from pipeline.export.parity import Parity
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.context import Context, training_versions
from pipeline.stages.space import Task

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = "student.safetensors"


@dataclass(frozen=True)
class Distilled:
    """A fully trained student."""

    architecture: Architecture
    weights_digest: str
    best_epoch: int
    validation_accuracy: float
    history: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class Trained:
    """A fully trained student with the file of its weights."""

    distilled: Distilled
    weights: Path


@dataclass(frozen=True)
class Exported:
    """Digests of the files of student and untrained reference network by format; parity by target."""

    students: Mapping[Format, str]
    references: Mapping[Format, str]
    parity: Mapping[str, Parity]


@dataclass(frozen=True)
class Compiled:
    """Compiled forms of student and reference network for one target."""

    student: Artifact
    reference: Artifact


@dataclass(frozen=True)
class Verified:
    """What the targets said of one candidate; accuracies are on the test split."""

    teacher_accuracy: float
    student_accuracy: float
    verdicts: Mapping[str, TargetVerdict]

    @property
    def valid(self) -> bool:
        """Every measurement says something: else the next run measures again."""
        return all(each.measurement.verdict is not Verdict.INVALID for each in self.verdicts.values())

    @property
    def acceptable(self) -> bool:
        """Every budget is kept that is not soft."""
        return all(verdict.acceptable for verdict in self.verdicts.values())


def distil(context: Context, task: Task, architecture: Architecture) -> Trained:
    """Train one student in full with soft targets, or with labels alone if these have no weight."""
    recipe = context.recipe
    settings = recipe.distil
    inputs = {
        "space": task.space.description,
        "architecture": [list(pair) for pair in architecture.choices],
        "data": task.data.summary.digest,
        "teacher": task.teacher.summary.digest,
        "distil": recipe.distil.model_dump(mode="json"),
        "seed": recipe.seed,
        "versions": training_versions(),
    }

    def compute(folder: Path) -> Distilled:
        import torch
        from safetensors.torch import save_file

        from pipeline.distill.training import fit

        torch.manual_seed(recipe.seed)
        student = task.space.build(architecture)
        soft = task.teacher.targets(task.data.dataset, settings.augment) if settings.soft_weight else None
        checkpoint = folder / "checkpoint.pt"
        with context.reporter.task("distilling the student", "epochs") as advance:
            result = fit(
                student,
                task.data.dataset,
                settings,
                seed=recipe.seed,
                targets=soft,
                checkpoint=checkpoint,
                on_epoch=lambda done, total, record: advance(done, total),
            )
        save_file(student.state_dict(), folder / _WEIGHTS)
        checkpoint.unlink(missing_ok=True)
        return Distilled(
            architecture,
            file_digest(folder / _WEIGHTS),
            result.best_epoch,
            result.best_validation_accuracy,
            result.history,
        )

    value = context.work.stage("distil", inputs, Distilled, compute)
    context.reporter.note(
        f"distil       {architecture}: {value.validation_accuracy:.2%} on the validation slice "
        f"after {len(value.history)} epochs"
    )
    return Trained(value, context.work.folder_of("distil") / _WEIGHTS)


def export(context: Context, task: Task, trained: Trained, reference: Architecture) -> Exported:
    """Export student and reference network to every target's format; compare the student with torch there."""
    distilled = trained.distilled
    settings, formats = context.recipe.export, sorted({format_of(target) for target in context.budgets})
    inputs = {
        "weights": distilled.weights_digest,
        "architecture": [list(pair) for pair in distilled.architecture.choices],
        "reference": [list(pair) for pair in reference.choices],
        "space": task.space.description,
        "targets": [str(target) for target in context.budgets],
        "export": settings.model_dump(mode="json"),
        "versions": {fmt.value: exporter_versions(fmt) for fmt in formats},
    }

    def compute(folder: Path) -> Exported:
        import torch

        from pipeline.export.network import export_networks

        student = load_student(task.space, trained)
        torch.manual_seed(0)
        untrained = task.space.build(reference)

        def write(fmt: Format) -> None:
            models = {_student_file(folder, fmt): student, _reference_file(folder, fmt): untrained}
            export_networks(models, task.space.input_shape, fmt)

        # Conversion runs in processes of its own, one per format.
        with ThreadPoolExecutor(len(formats)) as pool:
            list(pool.map(write, formats))
        return Exported(
            {fmt: file_digest(_student_file(folder, fmt)) for fmt in formats},
            {fmt: file_digest(_reference_file(folder, fmt)) for fmt in formats},
            {str(target): _parity(context, task, student, folder, target) for target in context.budgets},
        )

    value = context.work.stage("export", inputs, Exported, compute)
    for name, parity in value.parity.items():
        context.reporter.note(
            f"export       {name}: largest difference to torch {parity.max_abs:.1e} "
            f"(relative {parity.max_rel:.1e}) on {parity.samples} images"
        )
    return value


def _parity(context: Context, task: Task, student: nn.Module, folder: Path, target: Target) -> Parity:
    from pipeline.data.tensors import to_tensor
    from pipeline.export.parity import check_parity

    fmt, settings = format_of(target), context.recipe.export
    images = task.data.dataset.validation.images[: settings.samples]
    inputs = to_tensor(images, task.data.summary.preprocessing).numpy()
    return check_parity(
        student, _student_file(folder, fmt), fmt, inputs, target, tolerance=settings.tolerance
    )


def compile_for(context: Context, exported: Exported, target: Target) -> Compiled:
    """Compile the exported student and reference network for their target."""
    fmt, source = format_of(target), context.work.folder_of("export")
    runtime, device = context.identities[target]
    inputs = {
        "student": exported.students[fmt],
        "reference": exported.references[fmt],
        "target": str(target),
        "runtime": [runtime.name, runtime.version, runtime.binary_digest],
        "cpu": device.cpu,
    }

    def compute(folder: Path) -> Compiled:
        return Compiled(
            compile_artifact(_student_file(source, fmt), target, folder / "student"),
            compile_artifact(_reference_file(source, fmt), target, folder / "reference"),
        )

    value = context.work.stage("compile", inputs, Compiled, compute)
    # A work folder may have been moved since: the files lie where the stage lies now.
    folder = context.work.folder_of("compile")
    value = Compiled(
        replace(value.student, path=folder / "student" / value.student.path.name),
        replace(value.reference, path=folder / "reference" / value.reference.path.name),
    )
    size = value.student.path.stat().st_size
    context.reporter.note(f"compile      {target}: {value.student.path.name}, {size / 1000:.0f} kB")
    return value


def verify(context: Context, task: Task, trained: Trained, compiled: Mapping[str, Compiled]) -> Verified:
    """Run the compiled artifacts on their targets: accuracy on the test split, latency against the budget."""
    inputs = {
        "artifacts": {name: [c.student.digest, c.reference.digest] for name, c in compiled.items()},
        "teacher": task.teacher.summary.digest,
        "data": task.data.summary.digest,
        "budgets": {str(target): str(budget) for target, budget in context.budgets.items()},
        "launches": context.recipe.verify.launches,
        "targets": {
            str(target): identity[0].binary_digest for target, identity in context.identities.items()
        },
    }

    def compute(folder: Path) -> Verified:
        from pipeline.distill.training import accuracy

        dataset = task.data.dataset
        verdicts = {}
        with context.reporter.task("verifying on the targets", "targets") as advance:
            for done, (target, budget) in enumerate(context.budgets.items()):
                advance(done, len(context.budgets))
                artifact = compiled[str(target)]
                verdicts[str(target)] = verify_artifact(
                    artifact.student.path,
                    dataset.test,
                    dataset.preprocessing,
                    target,
                    layout=artifact.student.format.layout,
                    budget=budget,
                    reference=artifact.reference.path,
                    protocol=context.verification_protocol,
                )
        student = load_student(task.space, trained)
        return Verified(
            accuracy(task.teacher.teacher.module, dataset.test, dataset.preprocessing),
            accuracy(student, dataset.test, dataset.preprocessing),
            verdicts,
        )

    value = context.work.stage("verify", inputs, Verified, compute, final=lambda found: found.valid)
    for name, verdict in value.verdicts.items():
        word = "FEASIBLE" if verdict.feasible else "NOT FEASIBLE"
        context.reporter.note(
            f"verify       {name}: {word}, {verdict.accuracy:.2%} on the test split; {verdict.why}"
        )
    return value


def load_student(space: Space, trained: Trained) -> nn.Module:
    """The student with its trained weights, in eval mode."""
    from safetensors.torch import load_file

    student = space.build(trained.distilled.architecture)
    student.load_state_dict(load_file(trained.weights))
    return student.eval()


def _student_file(folder: Path, fmt: Format) -> Path:
    return folder / f"student{fmt.suffix}"


def _reference_file(folder: Path, fmt: Format) -> Path:
    return folder / f"reference{fmt.suffix}"
