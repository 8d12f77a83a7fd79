"""Writing a bundle: all files in a folder beside, which then takes its place at once."""

from __future__ import annotations

import importlib.resources
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from devices.digests import file_digest
from devices.errors import TargetError
from devices.inventory import runtime_of
from devices.target import Target
from latency_db.estimate import Estimate
from pipeline.bundle.manifest import (
    MANIFEST_NAME,
    BudgetEntry,
    ClassEntry,
    ImageDescription,
    Manifest,
    MeasuredLatency,
    MeasuredRatio,
    PredictedLatency,
    PreprocessingDescription,
    StudentEntry,
    TargetEntry,
    TeacherEntry,
    TensorDescription,
    manifest_bytes,
    manifest_digest,
    portable_name,
    target_slug,
)
from pipeline.bundle.reading import listing
from pipeline.data.base import Preprocessing, Split
from pipeline.errors import VerificationError, WorkFolderError
from pipeline.target_verdict import Layout, TargetVerdict
from pipeline.work.disk import disk_errors

_COMMON_IMPORT = "from pipeline.bundle.templates.infer_common import Predict, Settings, main\n"
_ANY_PROCESSOR = "any processor with the runtime"
_FUTURE_IMPORT = "from __future__ import annotations\n"


@dataclass(frozen=True)
class TargetContent:
    """One target's part of a bundle: its files, how its input is called and laid out, and what was seen.

    Attributes:
        artifact: the compiled file that was verified.
        runs_on: the processor that it was compiled for; ``any`` if it is not for one alone.
        portable: the file that it was compiled from.
        reference: what a relative budget refers to.
    """

    artifact: Path
    runs_on: str
    portable: Path
    reference: Path | None
    layout: Layout
    input_name: str
    output_name: str
    predicted: Estimate | None
    verdict: TargetVerdict


@dataclass(frozen=True, eq=False)
class BundleContent:
    """Everything that goes into a bundle; ``report`` is a finished HTML file, ``recipe`` the recipe's text.

    Accuracies are shares of ``test``: of the teacher, and of the student in torch before export. Transparent
    pixels of image files lie over ``background``, red, green and blue.
    """

    name: str
    targets: tuple[TargetContent, ...]
    test: Split
    preprocessing: Preprocessing
    background: tuple[int, int, int]
    labels: tuple[str, ...]
    teacher_digest: str
    teacher_accuracy: float
    student_architecture: str
    student_accuracy: float
    recipe: str
    report: Path
    versions: Mapping[str, str]


def write_bundle(content: BundleContent, folder: Path) -> Path:
    """Write a bundle; it stands at ``folder`` complete or not at all. An earlier bundle there is replaced.

    Raises:
        WorkFolderError: ``folder`` holds something that is not a bundle, or cannot be written.
        VerificationError: an artifact is not the file that was verified.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not (folder / MANIFEST_NAME).is_file()):
        raise WorkFolderError(
            f"{folder} is not replaced by a bundle",
            why="it exists and is not a bundle",
            fix="choose another folder, or move it away",
        )
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _fill(content, partial)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.replace(old)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.replace(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    return folder


def inference_script(runtime: str) -> str:
    """Source of the one-file inference script for a runtime.

    Raises:
        TargetError: no script exists for that runtime.
    """
    templates = importlib.resources.files("pipeline.bundle.templates")
    template = templates / f"infer_{runtime}.py"
    if runtime == "common" or not template.is_file():
        raise TargetError(
            f"there is no inference script for the runtime '{runtime}'",
            why="bundles are written for onnxruntime and litert",
            fix="choose a target with one of them",
        )
    common = (templates / "infer_common.py").read_text(encoding="utf-8").partition(_FUTURE_IMPORT)[2]
    return template.read_text(encoding="utf-8").replace(_COMMON_IMPORT, common.strip() + "\n")


def _fill(content: BundleContent, folder: Path) -> None:
    """Write all files of a bundle, the manifest last."""
    packed = io.BytesIO()
    np.savez_compressed(packed, images=content.test.images, labels=content.test.labels)
    _write(folder / "data" / "test.npz", packed.getvalue())
    _write(folder / "recipe.toml", content.recipe.encode())
    _write(folder / "report.html", content.report.read_bytes())
    entries = [_add_target(target, content, folder) for target in content.targets]
    _, height, width, channels = content.test.images.shape
    assert channels in (1, 3)
    manifest = Manifest(
        name=content.name,
        image=ImageDescription(height=height, width=width, channels=channels, background=content.background),
        preprocessing=PreprocessingDescription(**content.preprocessing.to_json()),
        labels=content.labels,
        teacher=TeacherEntry(digest=content.teacher_digest, accuracy=content.teacher_accuracy),
        student=StudentEntry(architecture=content.student_architecture, accuracy=content.student_accuracy),
        targets=tuple(entries),
        test="data/test.npz",
        recipe="recipe.toml",
        report="report.html",
        versions=dict(content.versions),
        files={name: file_digest(folder / name) for name in sorted(listing(folder))},
        digest="0" * 64,
    )
    document = manifest.model_dump(mode="json")
    document["digest"] = manifest_digest(document)
    _write(folder / MANIFEST_NAME, manifest_bytes(document))


def _add_target(content: TargetContent, bundle: BundleContent, folder: Path) -> TargetEntry:
    """Write one target's files and describe them."""
    verdict = content.verdict
    target = Target.parse(verdict.target)
    slug = target_slug(target)
    artifact = f"artifacts/{slug}/model{content.artifact.suffix}"
    reference = f"reference/{slug}/model{content.reference.suffix}" if content.reference else None
    portable = portable_name(target.runtime, content.portable.suffix)
    script = f"infer_{target.runtime}.py"
    measurements = f"measurements/{slug}.json"
    _write(folder / artifact, content.artifact.read_bytes())
    if file_digest(folder / artifact) != verdict.artifact_digest:
        raise VerificationError(
            f"{content.artifact} is not the file that was verified on {target}",
            why="its digest differs from the one in the verdict",
            fix="verify it again",
        )
    _write(folder / portable, content.portable.read_bytes())
    if reference and content.reference:
        _write(folder / reference, content.reference.read_bytes())
    _write(folder / script, inference_script(target.runtime).encode())
    _write(folder / measurements, (json.dumps(verdict.to_json(), indent=1, sort_keys=True) + "\n").encode())
    _, height, width, channels = bundle.test.images.shape
    axes: dict[Literal["NCHW", "NHWC"], tuple[int, ...]]
    axes = {"NCHW": (1, channels, height, width), "NHWC": (1, height, width, channels)}
    latency, predicted = verdict.measurement.latency, content.predicted
    return TargetEntry(
        target=verdict.target,
        delegate=runtime_of(target).delegate(target),
        artifact=artifact,
        artifact_digest=verdict.artifact_digest,
        artifact_runs_on=_ANY_PROCESSOR if content.runs_on == "any" else content.runs_on,
        portable=portable,
        portable_digest=file_digest(folder / portable),
        portable_runs_on=_ANY_PROCESSOR,
        reference=reference,
        infer=script,
        measurements=measurements,
        input=TensorDescription(name=content.input_name, shape=axes[content.layout], layout=content.layout),
        output=TensorDescription(name=content.output_name, shape=(1, len(bundle.labels)), layout="NK"),
        budget=BudgetEntry.of(verdict.budget),
        predicted=PredictedLatency(**asdict(predicted)) if predicted else None,
        measured=MeasuredLatency(
            **asdict(latency),
            verdict=verdict.measurement.verdict,
            reasons=tuple(reason.detail for reason in verdict.measurement.reasons),
        ),
        ratio=MeasuredRatio(**asdict(verdict.ratio)) if verdict.ratio else None,
        correct=verdict.correct,
        total=verdict.total,
        accuracy=verdict.accuracy,
        accuracy_target=verdict.accuracy_target,
        by_class=tuple(
            ClassEntry(label=label, correct=count.correct, total=count.total)
            for label, count in zip(bundle.labels, verdict.by_class, strict=False)
        ),
        feasible=verdict.feasible,
        why=verdict.why,
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
