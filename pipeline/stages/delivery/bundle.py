"""Stage ``bundle``: what the edge team ships."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from pipeline.bundle import (
    MANIFEST_NAME,
    BundleContent,
    ClassifierContent,
    RunContent,
    TargetContent,
    TensorDescription,
    write_bundle,
)
from pipeline.export.base import INPUT_NAME, OUTPUT_NAME
from pipeline.stages.delivery.report import PACKAGES, Findings, ReportFile
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.services import Services
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder, installed, stage

_FOLDER = "bundle"


@dataclass(frozen=True)
class BundleInput:
    """Everything that goes into a bundle."""

    name: str
    recipe_text: str
    data: DataSummary
    findings: Findings
    report: ReportFile


@dataclass(frozen=True)
class BundleMade:
    """The bundle's manifest, which has the digests of the files beside it."""

    manifest: StoredFile


@stage("bundle", packages=PACKAGES)
def make_bundle(given: BundleInput, folder: StageFolder, services: Services) -> BundleMade:
    """Write the bundle into the stage's folder."""
    findings = given.findings
    winner, teacher = findings.winner, findings.teacher
    test, labels = open_data(given.data, folder).test, given.data.classes
    _, height, width, channels = test.images.shape
    axes = {"NCHW": (1, channels, height, width), "NHWC": (1, height, width, channels)}
    logits = TensorDescription(name=OUTPUT_NAME, shape=(1, findings.plan.classes), layout="NK")
    targets = []
    for target in findings.targets:
        compiled, layout = winner.compiled[target.name], target.format.layout
        targets.append(
            TargetContent(
                artifact=folder.find(compiled.student.file),
                runs_on=compiled.student.notes.get("cpu", "any"),
                portable=folder.find(winner.portable(target)),
                reference=folder.find(compiled.reference.file) if compiled.reference else None,
                inputs=(TensorDescription(name=INPUT_NAME, shape=axes[layout], layout=layout),),
                outputs=(logits,),
                predicted=findings.predicted(target.name),
                verdict=winner.verified.verdicts[target.name],
            )
        )
    content = BundleContent(
        name=given.name,
        origin=RunContent(
            teacher_digest=teacher.digest,
            teacher_accuracy=winner.verified.teacher_accuracy,
            student_architecture=str(winner.distilled.architecture),
            student_accuracy=winner.verified.student_accuracy,
            recipe=given.recipe_text,
            report=folder.find(given.report.file),
        ),
        targets=tuple(targets),
        classifier=ClassifierContent(
            image_shape=(height, width, channels),
            preprocessing=given.data.preprocessing,
            background=given.data.background,
            labels=labels,
            test=test,
            task=given.data.task,
        ),
        versions=installed(PACKAGES),
    )
    # An earlier one is the stage's own, damaged or not.
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)
    write_bundle(content, folder / _FOLDER)
    return BundleMade(folder.stored(f"{_FOLDER}/{MANIFEST_NAME}"))
