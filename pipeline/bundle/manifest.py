"""The manifest of a bundle: what is in it, where it came from, and what was predicted and measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from devices.digests import value_digest
from devices.errors import TargetError
from devices.measurement import Verdict
from devices.target import Target
from pipeline.budget import Budget
from pipeline.data.base import Preprocessing
from pipeline.tasks import SINGLE_LABEL, AnyTask

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "signature.json"


def plain_path(text: str) -> str:
    """Return ``text`` if it is a relative POSIX path that stays inside the bundle on every system.

    Raises:
        ValueError: it is absolute, climbs out, or is not in its shortest form.
    """
    path = PurePosixPath(text)
    odd = any(character in text for character in "\\:\0")
    if odd or not path.parts or path.is_absolute() or ".." in path.parts or str(path) != text:
        raise ValueError(f"{text!r} is not a plain path inside the bundle")
    return text


BundlePath = Annotated[str, AfterValidator(plain_path)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Metric = Annotated[float, Field(le=1)]
TensorType = Literal["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
Level = Annotated[int, Field(ge=0, le=255)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageDescription(_Model):
    """The images that the bundle takes: uint8, height x width x channels.

    ``background`` is red, green and blue of what lies under transparent pixels of image files.
    """

    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    channels: Literal[1, 2, 3, 4]
    dtype: Literal["uint8"] = "uint8"
    background: tuple[Level, Level, Level] = (255, 255, 255)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


class PreprocessingDescription(_Model):
    """Bytes to float32: ``(image / scale - mean) / std`` per channel."""

    scale: Literal[255] = 255
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    def build(self) -> Preprocessing:
        """The preprocessing that is described."""
        return Preprocessing(self.mean, self.std)


class ClassifierDescription(_Model):
    """What a classifier of images, or another model of images, takes, and what it answers.

    ``task`` says what outputs mean: logits of the classes (``single-label``), a logit for each label
    (``multi-label``), numbers of which ``output * std + mean`` is in the unit of the data (``regression``),
    or a vector to be compared by its cosine (``embedding``). ``labels`` are names in the order of the
    outputs; of an embedding, those of the test images. ``outputs`` says whether a finished network gives
    probabilities already where a task has logits.
    """

    image: ImageDescription
    preprocessing: PreprocessingDescription
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    task: AnyTask = SINGLE_LABEL
    outputs: Literal["logits", "probabilities"] = "logits"

    @model_validator(mode="after")
    def _every_channel_is_preprocessed(self) -> Self:
        if {len(self.preprocessing.mean), len(self.preprocessing.std)} != {self.image.channels}:
            raise ValueError(f"the preprocessing is not that of {self.image.channels} channels")
        return self


class Quantisation(_Model):
    """A real number is ``(stored - zero_point) * scale``."""

    scale: Annotated[float, Field(gt=0)]
    zero_point: int


class TensorDescription(_Model):
    """One input or output of an artifact; ``layout`` names the axes of ``shape`` where they are known.

    ``quantisation`` says which real numbers an integer stands for, where one scale holds for all.
    """

    name: str
    shape: tuple[Annotated[int, Field(gt=0)], ...]
    layout: Literal["NCHW", "NHWC", "NK"] | None = None
    dtype: TensorType = "float32"
    quantisation: Quantisation | None = None


class PredictedLatency(_Model):
    """An estimate that was made before the artifact existed."""

    kind: Literal["estimate"] = "estimate"
    low_ns: float
    value_ns: float
    high_ns: float
    coverage: float


class MeasuredLatency(_Model):
    """The headline of the measurement; raw samples are in the file that the target entry names."""

    kind: Literal["measurement"] = "measurement"
    low_ns: float
    value_ns: float
    high_ns: float
    confidence: float
    verdict: Verdict
    reasons: tuple[str, ...]


class MeasuredRatio(_Model):
    """Latency relative to that of what the budget refers to, launch by launch."""

    low: float
    value: float
    high: float
    confidence: float


class BudgetEntry(_Model):
    """The budget: ``limit_ms``, or ``relative`` times the latency of the ``relative_to``; one is null.

    A soft budget may be exceeded. ``words`` say the same for people.
    """

    relative: Annotated[float, Field(gt=0)] | None
    relative_to: Literal["reference", "teacher"]
    limit_ms: Annotated[float, Field(gt=0)] | None
    soft: bool
    words: str

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """A budget as an entry."""
        return cls(**asdict(budget), words=budget.words)

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if (self.relative is None) == (self.limit_ms is None):
            raise ValueError("a budget has either a relative or an absolute limit")
        return self

    def build(self) -> Budget:
        """The budget that is described."""
        return Budget(self.relative, self.limit_ms, self.soft, self.relative_to)


class ClassEntry(_Model):
    """Test images of one class that the artifact classifies correctly, of all of them."""

    label: str
    correct: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]


class AccuracyEntry(_Model):
    """How well the artifact does its task on the test images, by the task's ``metric``.

    ``share`` is the metric: 1 for outputs that are perfect. Where it counts images it is ``correct`` of
    ``total``; else ``correct`` is null. ``target`` says where that was found out, if the artifact's own
    target gives no outputs for given inputs.
    """

    metric: str = "accuracy"
    correct: Annotated[int, Field(ge=0)] | None
    total: Annotated[int, Field(gt=0)]
    share: Metric
    target: str | None
    by_class: tuple[ClassEntry, ...]


class TargetEntry(_Model):
    """One artifact: where it is, what it takes and gives, and what was seen of it on its target.

    ``delegate`` is where the target's options want the operations, in the runtime's own words. Inputs and
    outputs are in the artifact's own order. ``reference`` is the model that ``ratio`` compares with: what a
    relative budget refers to, or the model from which ``lathe compile`` started.

    Beside the artifact, which may be optimised for one kind of processor, is the portable model that it was
    compiled from: the same network with the same input and output.
    """

    target: str
    delegate: str
    artifact: BundlePath
    artifact_digest: Digest
    artifact_runs_on: str
    portable: BundlePath
    portable_digest: Digest
    portable_runs_on: str
    reference: BundlePath | None
    infer: BundlePath
    measurements: BundlePath
    inputs: Annotated[tuple[TensorDescription, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorDescription, ...], Field(min_length=1)]
    budget: BudgetEntry | None
    predicted: PredictedLatency | None
    measured: MeasuredLatency
    ratio: MeasuredRatio | None
    accuracy: AccuracyEntry | None
    feasible: bool
    why: str

    @field_validator("target")
    @classmethod
    def _is_a_target(cls, text: str) -> str:
        try:
            if str(Target.parse(text)) == text:
                return text
        except TargetError as error:
            raise ValueError(error.what) from error
        raise ValueError(f"{text!r} is not the name of a target")

    @property
    def image_layout(self) -> Literal["NCHW", "NHWC"]:
        """The layout in which it takes images.

        Raises:
            ValueError: it says none.
        """
        layout = self.inputs[0].layout
        if layout not in ("NCHW", "NHWC"):
            raise ValueError(f"{self.artifact} has no layout of images")
        return layout


class TeacherEntry(_Model):
    """The teacher: digest of its configuration and weights, and the task's metric on the test split."""

    digest: str
    accuracy: Metric


class StudentEntry(_Model):
    """The student before export: its architecture in words, and the metric in torch on the test split."""

    architecture: str
    accuracy: Metric


class RunOrigin(_Model):
    """``lathe run`` made the bundle: a recipe, a teacher, and the student that was found and trained."""

    kind: Literal["run"] = "run"
    teacher: TeacherEntry
    student: StudentEntry
    recipe: BundlePath
    report: BundlePath

    @property
    def files(self) -> set[str]:
        """The files that it names."""
        return {self.recipe, self.report}


class CompileOrigin(_Model):
    """``lathe compile`` made the bundle: a finished model, compiled in the way that measured best.

    ``model`` is the name of the file or the factory that was given, ``model_digest`` the digest of the model
    as it was read. ``variants`` is a JSON file of everything that was tried, with its figures; ``choice``
    says in a sentence why the artifacts are what they are.
    """

    kind: Literal["compile"] = "compile"
    model: str
    model_digest: Digest
    choice: str
    variants: BundlePath
    report: BundlePath | None

    @property
    def files(self) -> set[str]:
        """The files that it names."""
        return {self.variants} | ({self.report} if self.report else set())


class Manifest(_Model):
    """Everything that a bundle says of itself; ``digest`` is over the canonical JSON of all the rest.

    Without ``classifier`` the artifacts map tensors to tensors. Only a classifier can have ``test`` images.
    ``components`` lists the packages that made the bundle and those that it needs, in CycloneDX.
    """

    schema_version: Literal[3] = 3
    name: str
    origin: Annotated[RunOrigin | CompileOrigin, Field(discriminator="kind")]
    classifier: ClassifierDescription | None
    test: BundlePath | None
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1)]
    versions: dict[str, str]
    components: BundlePath
    files: dict[BundlePath, Digest]
    digest: Digest

    @model_validator(mode="after")
    def _only_classifiers_are_tested(self) -> Self:
        if self.test is not None and self.classifier is None:
            raise ValueError("there are test images, and no description of the classifier that takes them")
        if self.test is None and any(entry.accuracy is not None for entry in self.targets):
            raise ValueError("there is an accuracy, and there are no test images to repeat it on")
        return self

    @model_validator(mode="after")
    def _classifiers_take_their_images(self) -> Self:
        if self.classifier is None or self.test is None:
            return self
        image, (height, width, channels) = self.classifier.image, self.classifier.image.shape
        for entry in self.targets:
            shape = (height, width, channels) if entry.image_layout == "NHWC" else (channels, height, width)
            if entry.inputs[0].shape[1:] != shape:
                raise ValueError(f"{entry.artifact} takes no images of {image.height}x{image.width}")
        return self

    @model_validator(mode="after")
    def _targets_are_different(self) -> Self:
        if len({entry.target for entry in self.targets}) != len(self.targets):
            raise ValueError("a target is there twice")
        return self

    @property
    def used_files(self) -> set[str]:
        """The files that anything here names, besides the list of all."""
        used = self.origin.files | {self.components} | ({self.test} if self.test else set())
        for entry in self.targets:
            used |= {entry.artifact, entry.portable, entry.infer, entry.measurements}
            used |= {entry.reference} if entry.reference else set()
        return used


def manifest_schema() -> dict[str, Any]:
    """JSON schema of ``manifest.json``."""
    return Manifest.model_json_schema()


def manifest_bytes(document: dict[str, Any]) -> bytes:
    """The one text that a manifest with this content has."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def manifest_digest(document: dict[str, Any]) -> str:
    """Digest of a manifest's content, its own ``digest`` left out."""
    return value_digest({name: value for name, value in document.items() if name != "digest"})


def portable_name(target: Target, suffix: str) -> str:
    """Where a bundle has the model that the target's artifact was compiled from, which runs on any processor
    with the runtime."""
    return f"portable/{target_slug(target)}/model{suffix}"


def artifact_name(target: Target, suffix: str) -> str:
    """Where a bundle has the target's artifact."""
    return f"artifacts/{target_slug(target)}/model{suffix}"


def comparable_name(target: Target, suffix: str) -> str:
    """Where a bundle has a file that computes as the target's artifact does and runs on any processor: in
    int8 the artifact itself."""
    name = artifact_name if target.precision == "int8" else portable_name
    return name(target, suffix)


def target_slug(target: Target) -> str:
    """A folder name for a target; distinct targets get distinct names."""
    text = str(target)
    for separator in "/:@":
        text = text.replace(separator, "_")
    return text
