"""What a manifest claims, held against the other files of its bundle; and what nothing in a bundle can prove.

Whoever changes a manifest can compute its digests again. What its figures were taken from lies beside it, so
figures that do not follow from that are found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from devices.measurement import Measurement, Ratio, Verdict
from devices.target import Target
from pipeline.bundle.descriptions import description_differences, edges_of
from pipeline.bundle.manifest import (
    MANIFEST_NAME,
    AccuracyEntry,
    CompileOrigin,
    Manifest,
    MeasuredLatency,
    MeasuredRatio,
    RunOrigin,
    TargetEntry,
)
from pipeline.bundle.reading import refused
from pipeline.bundle.writing import inference_script
from pipeline.target_verdict import Accuracy, TargetVerdict, judge


def check_claims(folder: Path, manifest: Manifest, entry: TargetEntry, verdict: TargetVerdict) -> None:
    """Refuse a target's entry that says other than the measurements that lie beside it.

    Args:
        folder: the bundle.
        manifest: of the bundle.
        entry: of the target.
        verdict: what was seen of the artifact when the bundle was written.

    Raises:
        VerificationError: naming the first claim that does not follow from the measurements.
    """
    found = next(_differences(manifest, entry, verdict), None)
    if found is not None:
        raise refused(
            folder, MANIFEST_NAME, f"says other than {entry.measurements} of {entry.target}: {found}"
        )
    check_descriptions(folder, entry, verdict)


def check_descriptions(folder: Path, entry: TargetEntry, verdict: TargetVerdict) -> None:
    """Refuse a target's entry that describes inputs or outputs otherwise than its artifact has them.

    Args:
        folder: the bundle.
        entry: of the target.
        verdict: of the artifact, whenever it was measured.

    Raises:
        VerificationError: naming the first that differs.
    """
    found = next(description_differences(folder / entry.artifact, entry, verdict.measurement), None)
    if found is not None:
        raise refused(folder, MANIFEST_NAME, f"describes {entry.artifact} wrongly: {found}")


def not_repeated(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """What verification cannot find out from the bundle: each thing in a few words.

    Args:
        folder: the bundle.
        manifest: of the bundle.
    """
    return tuple(_not_repeated(folder, manifest))


def _not_repeated(folder: Path, manifest: Manifest) -> Iterator[str]:
    origin = manifest.origin
    if isinstance(origin, RunOrigin):
        yield "the accuracies of the teacher and of the student in torch"
        yield f"how the student was found ({origin.recipe}, {origin.report})"
    if isinstance(origin, CompileOrigin):
        yield f"why this variant was chosen ({origin.variants})"
    if any(entry.predicted is not None for entry in manifest.targets):
        yield "the predicted latencies"
    if any(entry.accuracy is None for entry in manifest.targets):
        yield "how well the model does its work: there are no test images"
    portable = {
        entry.portable for entry in manifest.targets if entry.portable_digest != entry.artifact_digest
    }
    if portable:
        yield f"that the portable model computes the same ({', '.join(sorted(portable))})"
    scripts = {
        entry.infer
        for entry in manifest.targets
        if (folder / entry.infer).read_bytes()
        != inference_script(Target.parse(entry.target).runtime).encode()
    }
    if scripts:
        yield f"the scripts, which are not those of this version of Lathe ({', '.join(sorted(scripts))})"
    unread = {entry.artifact for entry in manifest.targets if edges_of(folder / entry.artifact) is None}
    if unread:
        yield f"the names of inputs and outputs, and all of the outputs, in {', '.join(sorted(unread))}"
    yield "the layouts by which inputs and outputs are described"
    yield "the names and versions of what made the bundle"


def _differences(manifest: Manifest, entry: TargetEntry, verdict: TargetVerdict) -> Iterator[str]:
    """Each claim of an entry that does not follow from its verdict, in words."""
    reference = verdict.reference
    digests = {
        "the artifact": (entry.artifact_digest, verdict.artifact_digest),
        "what was measured": (entry.artifact_digest, verdict.measurement.artifact_digest),
    }
    if entry.reference is not None and reference is not None:
        digests["the reference"] = (manifest.files[entry.reference], reference.artifact_digest)
    for name, (claimed, found) in digests.items():
        if claimed != found:
            yield f"{name} has the digest {claimed[:12]}, measured was {found[:12]}"
    asked, ran = Target.parse(verdict.target), Target.parse(verdict.measurement.target)
    # Of a pool, the measurement names the member.
    if entry.target != verdict.target or replace(ran, device=asked.device) != asked:
        yield f"it was measured on {verdict.measurement.target}"
    if (entry.reference is None) != (reference is None):
        yield "the reference is not what was measured beside the artifact"
    yield from _latency_differences(entry.measured, verdict.measurement)
    yield from _ratio_differences(entry.ratio, verdict.ratio)
    yield from _accuracy_differences(entry.accuracy, verdict.accuracy)
    budget = None if entry.budget is None else entry.budget.build()
    if budget != verdict.budget or (entry.budget and budget and entry.budget.words != budget.words):
        yield "the budget is another one"
    feasible, _ = judge(verdict.budget, verdict.measurement, reference, verdict.ratio, verdict.between)
    if not entry.feasible == verdict.feasible == feasible:
        yield f"the budget is {'' if feasible else 'not '}kept by what was measured"
    if entry.why != verdict.why:
        yield "it gives another reason"


def _latency_differences(claimed: MeasuredLatency, found: Measurement) -> Iterator[str]:
    latency = found.latency
    names = ["value_ns", "confidence"]
    # In earlier versions what was disturbed reached less far down, and where it was invalid to either side.
    names += [] if found.verdict is Verdict.INVALID else ["high_ns"]
    names += ["low_ns"] if found.verdict is Verdict.VALID else []
    for name in names:
        said, value = getattr(claimed, name), getattr(latency, name)
        if not math.isclose(said, value, rel_tol=1e-6):
            yield f"the latency's {name} is {said:g}, its samples give {value:g}"
    if claimed.verdict is not found.verdict or claimed.reasons != tuple(
        reason.detail for reason in found.reasons
    ):
        yield f"the measurement is called {claimed.verdict.value}, and was {found.verdict.value}"


def _ratio_differences(claimed: MeasuredRatio | None, found: Ratio | None) -> Iterator[str]:
    if claimed is None or found is None:
        if (claimed is None) != (found is None):
            yield "the ratio to the reference is there on one side only"
        return
    for name in ("low", "value", "high"):
        if not math.isclose(getattr(claimed, name), getattr(found, name), rel_tol=1e-6):
            yield f"the ratio's {name} is {getattr(claimed, name):g}, and was {getattr(found, name):g}"


def _accuracy_differences(claimed: AccuracyEntry | None, found: Accuracy | None) -> Iterator[str]:
    if claimed is None or found is None:
        if (claimed is None) != (found is None):
            yield "the accuracy is there on one side only"
        return
    classes = [(each.correct, each.total) for each in claimed.by_class]
    seen = [(each.correct, each.total) for each in found.by_class[: len(classes)]]
    if claimed.metric != found.metric:
        yield f"the metric is called {claimed.metric}, and was {found.metric}"
    if (claimed.correct, claimed.total, claimed.target) != (found.correct, found.total, found.target):
        was = f"{found.correct} of {found.total}"
        yield f"{claimed.correct} of {claimed.total} images are correct, and {was} were"
    elif not math.isclose(claimed.share, found.share, abs_tol=1e-9):
        was = f"and was {found.share:.2%}"
        yield f"the {found.metric}, {found.count_words}, is called {claimed.share:.2%}, {was}"
    if classes != seen or (classes and sum(total for _, total in classes) != claimed.total):
        yield "the accuracies of the classes are others"
