"""Writing a bundle: all files in a folder beside, which then takes its place at once."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from devices.digests import file_digest
from devices.errors import TargetError
from devices.inventory import runtime_of
from devices.target import Target
from devices.untrusted import file_bytes, json_from
from devices.words import listed
from latency_db.estimate import Estimate
from pipeline.bundle.components import ListedArtifact, component_list
from pipeline.bundle.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    AccuracyEntry,
    BudgetEntry,
    ClassEntry,
    ClassifierDescription,
    CompileOrigin,
    ImageDescription,
    Manifest,
    MeasuredLatency,
    MeasuredRatio,
    PredictedLatency,
    PreprocessingDescription,
    RunOrigin,
    StudentEntry,
    TargetEntry,
    TeacherEntry,
    TensorDescription,
    artifact_name,
    manifest_bytes,
    manifest_digest,
    portable_name,
    target_slug,
)
from pipeline.bundle.reading import MOST_JSON_BYTES, listing
from pipeline.data.base import Preprocessing, Split
from pipeline.errors import VerificationError, WorkFolderError
from pipeline.target_verdict import Accuracy, TargetVerdict
from pipeline.tasks import SINGLE_LABEL, AnyTask
from pipeline.work.disk import disk_errors

_COMMON_IMPORT = re.compile(r"^from pipeline\.bundle\.templates\.infer_common import .*\n", re.MULTILINE)
_TEMPLATES = "pipeline.bundle.templates"
_REPORT = "report.html"
_COMPONENTS = "components.cdx.json"
_ANY_PROCESSOR = "any processor with the runtime"
_DISPATCH_IMPORT = re.compile(r"^from devices\.runtimes import .*\n", re.MULTILINE)
_FUTURE_IMPORT = "from __future__ import annotations\n"
_METRICS_IMPORT = re.compile(r"^from pipeline\.tasks\.metrics import \([^)]*\)\n", re.MULTILINE)
_FIRST_FUNCTION = "\ndef "


@dataclass(frozen=True)
class TargetContent:
    """One target's part of a bundle: its files, what they take and give, and what was seen.

    Attributes:
        artifact: the compiled file that was verified.
        runs_on: the processor that it was compiled for; ``any`` if it is not for one alone.
        portable: the file that it was compiled from; the artifact itself where nobody here has that.
        reference: what ``verdict.ratio`` compares with.
        inputs: in the artifact's order; that of a classifier is the first, float32 and NCHW or NHWC.
        outputs: in the artifact's order; the logits of a classifier are the first.
        predicted: before the artifact existed; ``None`` if nothing was.
        verdict: of this artifact on its target.
    """

    artifact: Path
    runs_on: str
    portable: Path
    reference: Path | None
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    predicted: Estimate | None
    verdict: TargetVerdict


@dataclass(frozen=True, eq=False)
class ClassifierContent:
    """What the artifacts of a classifier, or of another model of images, have in common.

    Attributes:
        image_shape: height, width and channels (1 to 4) of the images.
        preprocessing: from bytes to the network's input.
        background: red, green and blue of what lies under transparent pixels of image files.
        labels: names in the order of the outputs; of an embedding, those of the test images.
        test: labelled images on which the accuracies were taken; ``None`` if there are none.
        task: says what outputs and labels mean.
        probabilities: outputs are probabilities where the task has logits.
    """

    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    background: tuple[int, int, int]
    labels: tuple[str, ...]
    test: Split | None
    task: AnyTask = SINGLE_LABEL
    probabilities: bool = False


@dataclass(frozen=True)
class RunContent:
    """What ``lathe run`` adds: ``report`` is a finished HTML file, ``recipe`` the recipe's text.

    Accuracies are shares of the test images: of the teacher, and of the student in torch before export.
    """

    teacher_digest: str
    teacher_accuracy: float
    student_architecture: str
    student_accuracy: float
    recipe: str
    report: Path


@dataclass(frozen=True)
class CompileContent:
    """What ``lathe compile`` adds.

    Attributes:
        name: of the file or the factory that was given.
        model: the model as it was read, in a file.
        choice: one sentence that says why the artifacts are what they are.
        variants: all that was tried, with its figures, as a JSON document.
        report: a finished HTML file, if there is one.
    """

    name: str
    model: Path
    choice: str
    variants: Mapping[str, Any]
    report: Path | None


@dataclass(frozen=True, eq=False)
class BundleContent:
    """Everything that goes into a bundle.

    Attributes:
        name: of the recipe or the model.
        origin: what made it.
        targets: at least one.
        classifier: ``None`` for artifacts that map tensors to tensors.
        versions: of the packages that made it, by name.
    """

    name: str
    origin: RunContent | CompileContent
    targets: tuple[TargetContent, ...]
    classifier: ClassifierContent | None
    versions: Mapping[str, str]


def write_bundle(content: BundleContent, folder: Path) -> Path:
    """Write a bundle; it stands at ``folder`` complete or not at all. An earlier bundle there is replaced.

    Raises:
        WorkFolderError: ``folder`` is not a bundle or holds a file that is not of it, or cannot be written.
        VerificationError: an artifact is not the file that was verified.
    """
    folder = folder.absolute()
    require_replaceable(folder)
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
    templates = importlib.resources.files(_TEMPLATES)
    template = templates / f"infer_{runtime}.py"
    if runtime not in _runtimes():
        raise TargetError(
            f"there is no inference script for the runtime '{runtime}'",
            why=f"there are scripts for {listed(_runtimes())}",
            fix="choose a target with one of them",
        )
    common = _below_future(templates / "infer_common.py")
    dispatch = _below_future(importlib.resources.files("devices.agent") / "dispatch.py")
    metrics = (importlib.resources.files("pipeline.tasks") / "metrics.py").read_text(encoding="utf-8")
    functions = metrics[metrics.index(_FIRST_FUNCTION) + 1 :]
    # The same functions as everywhere, and no second text of them.
    common = f"{_METRICS_IMPORT.sub('', common).rstrip()}\n\n\n{functions}"
    script = _DISPATCH_IMPORT.sub(lambda _: dispatch.strip() + "\n\n\n", template.read_text(encoding="utf-8"))
    return _COMMON_IMPORT.sub(lambda _: common.strip() + "\n", script)


def require_replaceable(folder: Path) -> None:
    """See that a bundle may be written to a folder: it is not there, or an earlier bundle and nothing else.

    Raises:
        WorkFolderError: it holds something of somebody else.
    """
    if os.path.lexists(folder) and (why := _why_kept(folder)) is not None:
        raise WorkFolderError(
            f"{folder.absolute()} is not replaced by a bundle",
            why=why,
            fix="choose another folder, or move it away",
        )


def _why_kept(folder: Path) -> str | None:
    """Why a folder is not replaced; ``None`` for a bundle of any version with no file beside its own."""
    try:
        document = json_from(file_bytes(folder / MANIFEST_NAME, MOST_JSON_BYTES))
        is_bundle = not folder.is_symlink() and document["digest"] == manifest_digest(document)
        others = listing(folder) - {MANIFEST_NAME, SIGNATURE_NAME, *document["files"]}
    except (OSError, ValueError, LookupError, TypeError, VerificationError):
        is_bundle = False
    if not is_bundle:
        return "it exists and is not a bundle"
    return f"it holds {min(others)}, which is not of the bundle there" if others else None


def _below_future(source: Traversable) -> str:
    return source.read_text(encoding="utf-8").partition(_FUTURE_IMPORT)[2]


def _runtimes() -> list[str]:
    """The runtimes that have a template beside the common part."""
    names = (each.name for each in importlib.resources.files(_TEMPLATES).iterdir())
    found = {name.removeprefix("infer_").removesuffix(".py") for name in names if name.startswith("infer_")}
    return sorted(found - {"common"})


def _fill(content: BundleContent, folder: Path) -> None:
    """Write all files of a bundle, the manifest last."""
    classifier = content.classifier
    test = None
    if classifier is not None and classifier.test is not None:
        test = "data/test.npz"
        (folder / test).parent.mkdir(parents=True, exist_ok=True)
        with (folder / test).open("wb") as packed:
            np.savez_compressed(packed, images=classifier.test.images, labels=classifier.test.labels)
    origin = _add_origin(content.origin, folder)
    targets = tuple(_add_target(target, content, folder) for target in content.targets)
    listed_artifacts = [_listed(*pair) for pair in zip(targets, content.targets, strict=True)]
    components = component_list(content.name, content.versions, listed_artifacts)
    _write(folder / _COMPONENTS, _json_bytes(components))
    manifest = Manifest(
        name=content.name,
        origin=origin,
        classifier=_describe_classifier(classifier) if classifier else None,
        test=test,
        targets=targets,
        versions=dict(content.versions),
        components=_COMPONENTS,
        files={name: file_digest(folder / name) for name in sorted(listing(folder))},
        digest="0" * 64,
    )
    document = manifest.model_dump(mode="json")
    document["digest"] = manifest_digest(document)
    _write(folder / MANIFEST_NAME, manifest_bytes(document))


def _listed(entry: TargetEntry, content: TargetContent) -> ListedArtifact:
    runs_here = runtime_of(Target.parse(entry.target)).needs_python
    version = content.verdict.measurement.runtime.version if runs_here else None
    script = inference_script(Target.parse(entry.target).runtime)
    return ListedArtifact(entry.artifact, entry.artifact_digest, script, version)


def _describe_classifier(classifier: ClassifierContent) -> ClassifierDescription:
    height, width, channels = classifier.image_shape
    assert channels in (1, 2, 3, 4)
    return ClassifierDescription(
        image=ImageDescription(
            height=height, width=width, channels=channels, background=classifier.background
        ),
        preprocessing=PreprocessingDescription(**classifier.preprocessing.to_json()),
        labels=classifier.labels,
        task=classifier.task,
        outputs="probabilities" if classifier.probabilities else "logits",
    )


def _add_origin(origin: RunContent | CompileContent, folder: Path) -> RunOrigin | CompileOrigin:
    """Write the files of what made the bundle, and describe it."""
    if origin.report is not None:
        _write(folder / _REPORT, origin.report.read_bytes())
    if isinstance(origin, RunContent):
        _write(folder / "recipe.toml", origin.recipe.encode())
        return RunOrigin(
            teacher=TeacherEntry(digest=origin.teacher_digest, accuracy=origin.teacher_accuracy),
            student=StudentEntry(architecture=origin.student_architecture, accuracy=origin.student_accuracy),
            recipe="recipe.toml",
            report=_REPORT,
        )
    _write(folder / "variants.json", _json_bytes(origin.variants))
    return CompileOrigin(
        model=origin.name,
        model_digest=file_digest(origin.model),
        choice=origin.choice,
        variants="variants.json",
        report=_REPORT if origin.report else None,
    )


def _add_target(content: TargetContent, bundle: BundleContent, folder: Path) -> TargetEntry:
    """Write one target's files and describe them."""
    verdict = content.verdict
    target = Target.parse(verdict.target)
    slug = target_slug(target)
    artifact = artifact_name(target, content.artifact.suffix)
    reference = f"reference/{slug}/model{content.reference.suffix}" if content.reference else None
    portable = portable_name(target, content.portable.suffix)
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
    _write(folder / measurements, _json_bytes(verdict.to_json()))
    latency, predicted = verdict.measurement.latency, content.predicted
    runs_on = _ANY_PROCESSOR if content.runs_on == "any" else content.runs_on
    return TargetEntry(
        target=verdict.target,
        delegate=runtime_of(target).delegate(target),
        artifact=artifact,
        artifact_digest=verdict.artifact_digest,
        artifact_runs_on=runs_on,
        portable=portable,
        portable_digest=file_digest(folder / portable),
        portable_runs_on=runs_on if content.portable == content.artifact else _ANY_PROCESSOR,
        reference=reference,
        infer=script,
        measurements=measurements,
        inputs=content.inputs,
        outputs=content.outputs,
        budget=BudgetEntry.of(verdict.budget) if verdict.budget else None,
        predicted=PredictedLatency(**asdict(predicted)) if predicted else None,
        measured=MeasuredLatency(
            **asdict(latency),
            verdict=verdict.measurement.verdict,
            reasons=tuple(reason.detail for reason in verdict.measurement.reasons),
        ),
        ratio=MeasuredRatio(**asdict(verdict.ratio)) if verdict.ratio else None,
        accuracy=_describe_accuracy(verdict.accuracy, bundle),
        feasible=verdict.feasible,
        why=verdict.why,
    )


def _describe_accuracy(accuracy: Accuracy | None, bundle: BundleContent) -> AccuracyEntry | None:
    if accuracy is None or bundle.classifier is None:
        return None
    return AccuracyEntry(
        metric=accuracy.metric,
        correct=accuracy.correct,
        total=accuracy.total,
        share=accuracy.share,
        target=accuracy.target,
        by_class=tuple(
            ClassEntry(label=label, correct=count.correct, total=count.total)
            for label, count in zip(bundle.classifier.labels, accuracy.by_class, strict=False)
        ),
    )


def _json_bytes(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
