"""Verifying a bundle from itself alone: integrity, then accuracy and latency on its targets again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from devices.target import Target
from devices.words import cause_of
from pipeline.bundle.manifest import TargetEntry
from pipeline.bundle.reading import read_bundle, refused
from pipeline.data.base import Split
from pipeline.target_verdict import TargetVerdict, verify_artifact

CHANGED_SHARE = 0.002
"""Share of predictions (at least one image) by which a repeated count of correct images may differ: another
processor adds in another order, and an image on the border between two classes may fall to the other side."""


@dataclass(frozen=True)
class TargetVerification:
    """One target verified again. ``accuracy_holds``: as many correct images as the manifest says, see
    ``CHANGED_SHARE``; ``expected_correct`` is the manifest's count."""

    verdict: TargetVerdict
    expected_correct: int
    accuracy_holds: bool


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
        return {**document, "holds": self.holds}


def verify_bundle(folder: Path, on_progress: Callable[[int, int], None]) -> BundleVerification:
    """Repeat integrity, accuracy and latency from the bundle alone; nothing is written into it.

    Args:
        folder: the bundle.
        on_progress: called with how many targets are done, and how many there are.

    Raises:
        VerificationError: the bundle was changed; see ``read_bundle``.
        TargetError: a target cannot be reached, or its runtime is not installed.
        MeasurementError: an artifact does not run on its target.
    """
    manifest = read_bundle(folder)
    test = _read_test(folder / manifest.test)
    done = []
    for number, entry in enumerate(manifest.targets):
        on_progress(number, len(manifest.targets))
        earlier = _read_verdict(folder, entry)
        assert entry.input.layout != "NK"
        verdict = verify_artifact(
            folder / entry.artifact,
            test,
            manifest.preprocessing.build(),
            Target.parse(entry.target),
            layout=entry.input.layout,
            budget=entry.budget.build(),
            reference=folder / entry.reference if entry.reference else None,
            protocol=earlier.measurement.protocol,
        )
        tolerance = max(1, int(CHANGED_SHARE * len(test)))
        holds = abs(verdict.correct - entry.correct) <= tolerance
        done.append(TargetVerification(verdict, entry.correct, holds))
    on_progress(len(manifest.targets), len(manifest.targets))
    return BundleVerification(manifest.digest, tuple(done))


def _read_verdict(folder: Path, entry: TargetEntry) -> TargetVerdict:
    try:
        return TargetVerdict.from_json(json.loads((folder / entry.measurements).read_bytes()))
    except ValueError as error:
        raise refused(folder, entry.measurements, f"cannot be read: {cause_of(error)}") from error


def _read_test(path: Path) -> Split:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Split(arrays["images"], arrays["labels"])
    except (ValueError, KeyError, OSError) as error:
        raise refused(path.parent.parent, "data/test.npz", f"cannot be read: {cause_of(error)}") from error
