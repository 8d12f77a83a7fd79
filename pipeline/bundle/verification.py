"""Verifying a bundle from itself alone: integrity, then accuracy and latency on its targets again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from devices.inventory import ignore_project_file_in
from devices.target import Target
from devices.trust import trusted_files
from devices.untrusted import arrays_from, file_bytes, json_from
from devices.words import cause_of
from pipeline.bundle.manifest import Manifest, TargetEntry
from pipeline.bundle.reading import MOST_JSON_BYTES, read_bundle, refused
from pipeline.bundle.signing import check_signature
from pipeline.data.base import Split
from pipeline.target_verdict import LabelledImages, TargetVerdict, verify_artifact

CHANGED_SHARE = 0.002
"""Share of predictions (at least one image) by which a repeated count of correct images may differ: another
processor adds in another order, and an image on the border between two classes may fall to the other side."""


@dataclass(frozen=True)
class TargetVerification:
    """One target verified again.

    Attributes:
        verdict: as seen now.
        expected_correct: test images that are correct by the manifest; ``None`` if it states no accuracy.
    """

    verdict: TargetVerdict
    expected_correct: int | None

    @property
    def accuracy_holds(self) -> bool:
        """As many images are correct as the manifest says, see ``CHANGED_SHARE``, or it does not say."""
        if self.expected_correct is None:
            return True
        now = self.verdict.accuracy
        if now is None:
            return False
        return abs(now.correct - self.expected_correct) <= max(1, int(CHANGED_SHARE * now.total))


@dataclass(frozen=True)
class BundleVerification:
    """An unchanged bundle verified again on its targets."""

    bundle_digest: str
    targets: tuple[TargetVerification, ...]

    @property
    def holds(self) -> bool:
        """Every target keeps its accuracy and its budget, unless that is soft."""
        return all(target.accuracy_holds and target.verdict.acceptable for target in self.targets)

    def to_json(self) -> dict[str, Any]:
        """All fields, raw samples included, and ``holds`` as JSON."""
        document: dict[str, Any] = TypeAdapter(BundleVerification).dump_python(self, mode="json")
        for entry, target in zip(document["targets"], self.targets, strict=True):
            entry["accuracy_holds"] = target.accuracy_holds
        return {**document, "holds": self.holds}


def verify_bundle(
    folder: Path, on_progress: Callable[[int, int], None], *, key: Path | None = None
) -> BundleVerification:
    """Repeat integrity, accuracy and latency from the bundle alone; nothing is written into it.

    Args:
        folder: the bundle.
        on_progress: called with how many targets are done, and how many there are.
        key: public key of whoever must have signed the bundle; nothing of it runs unless they did.

    Raises:
        VerificationError: the bundle was changed; see ``read_bundle``.
        UnsignedError, SignatureError, UsageError: see ``check_signature``.
        TargetError: a target cannot be reached, or its runtime is not installed.
        MeasurementError: an artifact does not run on its target, or is a program that nobody signed and that
            you do not trust.
    """
    ignore_project_file_in(folder)
    manifest = read_bundle(folder)
    if key is not None:
        check_signature(folder, key)
    run = {name for entry in manifest.targets for name in (entry.artifact, entry.reference) if name}
    done = []
    with trusted_files([folder / name for name in sorted(run)], trusting=key is not None) as files:
        for number, entry in enumerate(manifest.targets):
            on_progress(number, len(manifest.targets))
            earlier = read_verdict(folder, entry)
            verdict = verify_artifact(
                files[folder / entry.artifact],
                read_test(folder, manifest, entry),
                Target.parse(entry.target),
                budget=entry.budget.build() if entry.budget else None,
                reference=files[folder / entry.reference] if entry.reference else None,
                protocol=earlier.measurement.protocol,
            )
            done.append(TargetVerification(verdict, entry.accuracy.correct if entry.accuracy else None))
    on_progress(len(manifest.targets), len(manifest.targets))
    return BundleVerification(manifest.digest, tuple(done))


def read_verdict(folder: Path, entry: TargetEntry) -> TargetVerdict:
    """What was seen of an artifact when the bundle was written, raw samples included.

    Raises:
        VerificationError: the file holds something else.
    """
    try:
        content = file_bytes(folder / entry.measurements, MOST_JSON_BYTES)
        return TargetVerdict.from_json(json_from(content))
    except ValueError as error:
        raise refused(folder, entry.measurements, f"cannot be read: {cause_of(error)}") from error


def read_test(folder: Path, manifest: Manifest, entry: TargetEntry) -> LabelledImages | None:
    """The bundle's test images, as one of its artifacts takes them; ``None`` if it has none.

    Raises:
        VerificationError: the file holds something else.
    """
    layout = entry.inputs[0].layout
    if manifest.test is None or manifest.classifier is None or layout not in ("NCHW", "NHWC"):
        return None
    try:
        arrays = arrays_from(folder / manifest.test, ("images", "labels"))
        split = Split(arrays["images"], arrays["labels"])
    except (ValueError, KeyError, OSError) as error:
        raise refused(folder, manifest.test, f"cannot be read: {cause_of(error)}") from error
    image, classes = manifest.classifier.image, len(manifest.classifier.labels)
    if (
        split.images.dtype != np.uint8
        or split.labels.dtype != np.int64
        or split.images.shape != (len(split.labels), image.height, image.width, image.channels)
        or split.labels.ndim != 1
        or not len(split)
        or not 0 <= split.labels.min() <= split.labels.max() < classes
    ):
        raise refused(
            folder, manifest.test, "does not hold the images and labels that the manifest describes"
        )
    return LabelledImages(split, manifest.classifier.preprocessing.build(), layout)
