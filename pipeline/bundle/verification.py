"""Verifying a bundle from itself alone: integrity, then accuracy and latency on its targets again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from devices.inventory import ignore_project_file_in
from devices.measurement import BetweenBatches, Interval, Measurement
from devices.measuring import GoingOn, side_by_side
from devices.target import Target
from devices.trust import trusted_files
from devices.untrusted import arrays_from, file_bytes, json_from
from devices.words import cause_of
from pipeline.bundle.claims import check_claims, check_descriptions, not_repeated
from pipeline.bundle.manifest import AccuracyEntry, Manifest, TargetEntry
from pipeline.bundle.reading import MOST_JSON_BYTES, read_bundle, refused
from pipeline.bundle.signing import check_signature
from pipeline.data.base import Split
from pipeline.target_verdict import LabelledImages, TargetVerdict, verify_artifact

CHANGED_SHARE = 0.002
"""Share of predictions (at least one image) by which a repeated count of correct images may differ: another
processor adds in another order, and an image on the border between two classes may fall to the other side."""

MOST_LAUNCHES, MOST_NS = 3_000, 60 * 10**9
"""Launches, and time of each, that a bundle may ask for: as many as any recipe can have."""


@dataclass(frozen=True)
class TargetVerification:
    """One target verified again.

    Attributes:
        verdict: as seen now.
        expected: what the manifest says of the accuracy; ``None`` if it states none.
    """

    verdict: TargetVerdict
    expected: AccuracyEntry | None

    @property
    def accuracy_holds(self) -> bool:
        """As many images are correct as the manifest says, see ``CHANGED_SHARE``, or it does not say.

        A metric that counts no images may differ by as much.
        """
        if self.expected is None:
            return True
        now = self.verdict.accuracy
        if now is None or (now.metric, now.correct is None) != (
            self.expected.metric,
            self.expected.correct is None,
        ):
            return False
        allowed = max(1, int(CHANGED_SHARE * now.total))
        if now.correct is None or self.expected.correct is None:
            return abs(now.share - self.expected.share) <= allowed / now.total
        return abs(now.correct - self.expected.correct) <= allowed


@dataclass(frozen=True)
class BundleVerification:
    """An unchanged bundle verified again on its targets.

    Attributes:
        bundle_digest: of its manifest.
        targets: what was found out again.
        not_repeated: what it says that cannot be found out again, in words.
    """

    bundle_digest: str
    targets: tuple[TargetVerification, ...]
    not_repeated: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Every target keeps its accuracy and its budget, unless that is soft."""
        return all(target.accuracy_holds and target.verdict.acceptable for target in self.targets)

    def to_json(self) -> dict[str, Any]:
        """All fields, raw samples included, both intervals of each latency, and ``holds`` as JSON."""
        document: dict[str, Any] = TypeAdapter(BundleVerification).dump_python(self, mode="json")
        for entry, target in zip(document["targets"], self.targets, strict=True):
            entry["accuracy_holds"] = target.accuracy_holds
            entry["latency_ns"] = _interval_json(target.verdict.measurement.latency)
            entry["latency_on_device_ns"] = _interval_json(target.verdict.on_device)
        return {**document, "holds": self.holds}


def verify_bundle(
    folder: Path,
    on_progress: Callable[[int, int], None],
    *,
    key: Path | None = None,
    between: Callable[[Measurement], BetweenBatches | None] = lambda measurement: None,
) -> BundleVerification:
    """Repeat integrity, accuracy and latency from the bundle alone; nothing is written into it.

    Args:
        folder: the bundle.
        on_progress: called with how many targets are done, and how many there are.
        key: public key of whoever must have signed the bundle; nothing of it runs unless they did.
        between: how far batches differ on the device of a measurement, by which a budget in milliseconds is
            judged; where it is not known, what the bundle says of its device counts.

    Raises:
        VerificationError: the bundle was changed, see ``read_bundle``; or its manifest says other than its
            measurements, see ``check_claims``.
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
    with trusted_files([folder / name for name in sorted(run)], trusting=key is not None) as files:
        earlier = [read_verdict(folder, entry) for entry in manifest.targets]
        tests = [read_test(folder, manifest, entry) for entry in manifest.targets]
        for entry, verdict in zip(manifest.targets, earlier, strict=True):
            check_claims(folder, manifest, entry, verdict)
        done: list[str] = []

        def verify(number: int, entry: TargetEntry, going_on: GoingOn) -> TargetVerification:
            going_on()
            known = earlier[number].between
            verdict = verify_artifact(
                files[folder / entry.artifact],
                tests[number],
                Target.parse(entry.target),
                budget=entry.budget.build() if entry.budget else None,
                reference=files[folder / entry.reference] if entry.reference else None,
                protocol=earlier[number].measurement.protocol,
                between=lambda measurement: between(measurement) or known,
            )
            check_descriptions(folder, entry, verdict)
            done.append(entry.target)
            on_progress(len(done), len(manifest.targets))
            return TargetVerification(verdict, entry.accuracy)

        on_progress(0, len(manifest.targets))
        found = side_by_side(
            {
                Target.parse(entry.target): partial(verify, number, entry)
                for number, entry in enumerate(manifest.targets)
            }
        )
    return BundleVerification(manifest.digest, tuple(found.values()), not_repeated(folder, manifest))


def _interval_json(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    ends = {"low": interval.low_ns, "value": interval.value_ns, "high": interval.high_ns}
    return {**ends, "confidence": interval.confidence}


def _fit_task(split: Split, classes: int) -> bool:
    """Whether the labels, one at least, are those of the split's task."""
    labels = split.labels
    if split.task.kind in ("single-label", "embedding"):
        whole = labels.ndim == 1 and labels.dtype == np.int64
        return whole and bool(0 <= labels.min() <= labels.max() < classes)
    plain = labels.dtype == np.float32 and labels.shape[1:] == (classes,) and bool(np.isfinite(labels).all())
    return plain and (split.task.kind == "regression" or bool(np.isin(labels, (0, 1)).all()))


def read_verdict(folder: Path, entry: TargetEntry) -> TargetVerdict:
    """What was seen of an artifact when the bundle was written, raw samples included.

    Raises:
        VerificationError: the file holds something else, or measurements that nobody can repeat.
    """
    try:
        content = file_bytes(folder / entry.measurements, MOST_JSON_BYTES)
        verdict = TargetVerdict.from_json(json_from(content))
        # These can be computed of whole measurements only.
        _ = [each.latency for each in (verdict.measurement, verdict.reference) if each is not None]
        _ = verdict.accuracy and verdict.accuracy.share
        protocol = verdict.measurement.protocol
        if (
            max(protocol.launches, protocol.max_launches) > MOST_LAUNCHES
            or max(protocol.warmup_ns, protocol.min_ns) > MOST_NS
        ):
            raise ValueError(f"{protocol.launches} launches of {protocol.min_ns / 1e9:g} s are too much")
        # Nothing that makes bundles waits between launches.
        if protocol.spread_ns:
            raise ValueError(f"launches that are spread over {protocol.spread_ns / 1e9:g} s are too much")
        return verdict
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise refused(folder, entry.measurements, f"cannot be read: {cause_of(error)}") from error


def read_test(folder: Path, manifest: Manifest, entry: TargetEntry) -> LabelledImages | None:
    """The bundle's test images, as one of its artifacts takes them; ``None`` if it has none.

    Raises:
        VerificationError: the file holds something else.
    """
    if manifest.test is None or manifest.classifier is None:
        return None
    layout = entry.image_layout
    try:
        arrays = arrays_from(folder / manifest.test, ("images", "labels"))
        split = Split(arrays["images"], arrays["labels"], manifest.classifier.task)
    except (ValueError, KeyError, OSError) as error:
        raise refused(folder, manifest.test, f"cannot be read: {cause_of(error)}") from error
    image, classes = manifest.classifier.image, len(manifest.classifier.labels)
    if (
        split.images.dtype != np.uint8
        or split.labels.ndim < 1
        or not len(split)
        or split.images.shape != (len(split.labels), image.height, image.width, image.channels)
        or not _fit_task(split, classes)
    ):
        raise refused(
            folder, manifest.test, "does not hold the images and labels that the manifest describes"
        )
    return LabelledImages(split, manifest.classifier.preprocessing.build(), layout)
