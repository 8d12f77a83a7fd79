"""Stage ``rehearse``: a candidate's network beside what its budgets refer to, before it is trained.

Its latency does not depend on the weights' values, and a ratio of latencies is only sure where both were
measured side by side. A search compares latencies that were measured at different times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from devices.errors import MeasurementError
from devices.measurement import MeasuringProtocol, Ratio, Reason, Verdict, paired_ratio
from devices.measuring import GoingOn, side_by_side
from pipeline.budget import Budget
from pipeline.export.base import Format
from pipeline.export.cached_exports import Exportable
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.services import Services
from pipeline.tables.building.measuring import ModuleWorkload
from pipeline.tables.building.networks import network_workloads
from pipeline.target_verdict import measure_artifact
from pipeline.work.canonical import StoredFile, without_influence
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class RehearsalInput:
    """A candidate, and the targets whose budgets are relative.

    Attributes:
        reference: to which budgets refer, where they do not refer to the teacher.
        teachers: the teacher in float, by target whose budget refers to it.
        protocol: of the measurement.
        exporters: by target.
        budgets: by target; a ratio is the same whatever it is compared with.
    """

    plan: SpacePlan
    architecture: Architecture
    reference: Architecture
    teachers: Mapping[str, StoredFile]
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, Any]
    budgets: Mapping[str, Budget] = without_influence()


@dataclass(frozen=True)
class Rehearsed:
    """Latency of the untrained candidate over that of what its budget refers to, by target; without those
    where it could not be measured.
    """

    ratios: Mapping[str, Ratio]


def _told(given: RehearsalInput, value: Rehearsed) -> Sequence[str]:
    return [
        f"rehearse     {name}: untrained {ratio} of the {given.budgets[name].reference_name}'s latency"
        for name, ratio in value.ratios.items()
    ]


@stage("rehearse", packages=("torch",), tell=_told)
def rehearse(given: RehearsalInput, folder: StageFolder, services: Services) -> Rehearsed:
    """Measure the untrained network in the same launches as what its budgets refer to.

    Raises:
        TargetError: a target cannot be reached.
    """
    space = given.plan.open(folder)
    networks: dict[str, list[ModuleWorkload]] = {}
    wanted: dict[Format, dict[str, Exportable]] = {}
    for each in given.targets:
        beside = [] if each.name in given.teachers else [given.reference]
        networks[each.name] = network_workloads(space, [given.architecture, *beside], each.format)
        wanted.setdefault(each.format, {}).update(
            {part.workload.identity: (part.build, part.shape) for part in networks[each.name]}
        )
    with services.export(wanted, "networks", services.reporter) as files:

        def measure(target: BoundTarget, going_on: GoingOn) -> Ratio | None:
            going_on()
            both = [files[target.format][each.workload.identity] for each in networks[target.name]]
            if target.name in given.teachers:
                both.append(folder.find(given.teachers[target.name]))
            candidate, reference = both
            if isinstance(candidate, Reason) or isinstance(reference, Reason):
                return None
            return _ratio(candidate, reference, target, given.protocol)

        work = {each.target: partial(measure, each) for each in given.targets}
        with services.reporter.task("measuring the untrained candidate beside its reference", ""):
            ratios = side_by_side(work, services.reporter.note)
    return Rehearsed({str(target): ratio for target, ratio in ratios.items() if ratio is not None})


def _ratio(
    candidate: Path, reference: Path, target: BoundTarget, protocol: MeasuringProtocol
) -> Ratio | None:
    """Side by side in one batch; ``None`` where one does not run, or the measurement is invalid."""
    try:
        # What was disturbed is not repeated: it is verification that decides.
        one, other = measure_artifact(candidate, reference, target.target, protocol, lambda *_: True)
    except MeasurementError:
        return None
    if other is None or Verdict.INVALID in (one.verdict, other.verdict):
        return None
    return paired_ratio(one, other)
