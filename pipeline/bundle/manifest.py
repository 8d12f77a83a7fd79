"""The manifest of a bundle: what is in it, where it came from, and what was predicted and measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from devices.digests import value_digest
from devices.measurement import Verdict
from devices.target import Target
from pipeline.budget import Budget
from pipeline.data.base import Preprocessing

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"


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
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageDescription(_Model):
    """The images that the bundle takes: uint8, height x width x channels.

    ``background`` is red, green and blue of what lies under transparent pixels of image files.
    """

    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    channels: Literal[1, 3]
    dtype: Literal["uint8"] = "uint8"
    background: tuple[Level, Level, Level] = (255, 255, 255)


class PreprocessingDescription(_Model):
    """Bytes to float32: ``(image / scale - mean) / std`` per channel."""

    scale: Literal[255] = 255
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def build(self) -> Preprocessing:
        """The preprocessing that is described."""
        return Preprocessing(self.mean, self.std)


class TensorDescription(_Model):
    """One input or output of an artifact; ``layout`` names the axes of ``shape``."""

    name: str
    shape: tuple[int, ...]
    layout: Literal["NCHW", "NHWC", "NK"]
    dtype: Literal["float32"] = "float32"


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


class TargetEntry(_Model):
    """One artifact: where it is, what it takes and gives, and what was seen of it on its target.

    ``delegate`` is where the target's options want the operations, in the runtime's own words.
    ``accuracy_target`` says where the accuracy was taken, if the target gives no outputs for given inputs.

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
    input: TensorDescription
    output: TensorDescription
    budget: BudgetEntry
    predicted: PredictedLatency | None
    measured: MeasuredLatency
    ratio: MeasuredRatio | None
    correct: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(gt=0)]
    accuracy: Share
    accuracy_target: str | None = None
    by_class: tuple[ClassEntry, ...]
    feasible: bool
    why: str


class TeacherEntry(_Model):
    """The teacher: digest of its configuration and weights, and its accuracy on the test split."""

    digest: str
    accuracy: Share


class StudentEntry(_Model):
    """The student before export: its architecture in words, and its accuracy in torch on the test split."""

    architecture: str
    accuracy: Share


class Manifest(_Model):
    """Everything that a bundle says of itself; ``digest`` is over the canonical JSON of all the rest."""

    schema_version: Literal[2] = 2
    name: str
    image: ImageDescription
    preprocessing: PreprocessingDescription
    labels: tuple[str, ...]
    teacher: TeacherEntry
    student: StudentEntry
    targets: tuple[TargetEntry, ...]
    test: BundlePath
    recipe: BundlePath
    report: BundlePath
    versions: dict[str, str]
    files: dict[BundlePath, Digest]
    digest: Digest


def manifest_schema() -> dict[str, Any]:
    """JSON schema of ``manifest.json``."""
    return Manifest.model_json_schema()


def manifest_bytes(document: dict[str, Any]) -> bytes:
    """The one text that a manifest with this content has."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def manifest_digest(document: dict[str, Any]) -> str:
    """Digest of a manifest's content, its own ``digest`` left out."""
    return value_digest({name: value for name, value in document.items() if name != "digest"})


def portable_name(runtime: str, suffix: str) -> str:
    """Where a bundle has the model as exported, which runs on any processor with the runtime."""
    return f"portable/{runtime}/model{suffix}"


def target_slug(target: Target) -> str:
    """A folder name for a target; distinct targets get distinct names."""
    text = str(target)
    for separator in "/:@":
        text = text.replace(separator, "_")
    return text
