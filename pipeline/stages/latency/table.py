"""Stage ``table``: every block of the space, and the teacher in float, measured on every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from devices.measurement import MeasuringProtocol
from latency_db.tables import LatencyTable
from pipeline.export.base import Format, format_of, in_float
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.latency.teacher_parts import (
    TeacherLatency,
    keep_teacher,
    teacher_latency,
    teacher_parts,
    whole_teacher,
)
from pipeline.stages.services import Services
from pipeline.tables.building.space_table import described, measure_blocks
from pipeline.work.canonical import StoredFile, by_digest, without_influence
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class TableInput:
    """What is measured, where, how, and what exports it: by target, those in float with that of the teacher.

    ``networks`` whole ones are measured among the blocks, for stage ``feasibility`` to find them.
    """

    plan: SpacePlan
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, Any]
    teacher: TeacherSummary = by_digest()
    networks: int = without_influence(0)
    teacher_precision: Literal["fp32"] = "fp32"


@dataclass(frozen=True)
class Tables:
    """One latency table per target, and the latencies there of the teacher in float; by the target as text.

    ``teacher_models`` are files of the whole teacher, in the formats in which it was measured;
    ``missing_models`` are formats in which it could not be exported this time.
    """

    by_target: Mapping[str, LatencyTable]
    teacher: Mapping[str, TeacherLatency]
    teacher_models: Mapping[Format, StoredFile]
    missing_models: tuple[Format, ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing failed that may succeed another time, so that there is no need to measure again."""
        blocks = any(table.missing for table in self.by_target.values())
        teacher = any(latency.missing for latency in self.teacher.values())
        return not (blocks or teacher or self.missing_models)


def _told(given: TableInput, value: Tables) -> Sequence[str]:
    lines = []
    for name, table in value.by_target.items():
        whole = value.teacher[name].whole or "has no latency"
        lines.append(f"table        {name}: {described(table)}; the teacher: {whole}")
    return lines


@stage("table", packages=("torch",), final=lambda tables: tables.complete, tell=_told)
def build_tables(given: TableInput, folder: StageFolder, services: Services) -> Tables:
    """Measure every distinct block; what is in the database is not measured again."""
    teacher = open_teacher(given.teacher, folder).module
    targets = [each.target for each in given.targets]
    parts = {
        target: teacher_parts(given.teacher, teacher, format_of(target))
        for target in dict.fromkeys(map(in_float, targets))
    }
    tables, outcomes = measure_blocks(
        given.plan.open(folder),
        targets,
        services.bench(given.protocol),
        networks=given.networks,
        beside={target: list(its_parts.values()) for target, its_parts in parts.items()},
    )
    latencies = {target: teacher_latency(its_parts, outcomes[target]) for target, its_parts in parts.items()}
    wholes = {
        format_of(target): whole_teacher(parts[target])
        for target, latency in latencies.items()
        if latency.whole is not None
    }
    return Tables(
        {str(target): table for target, table in tables.items()},
        {str(target): latencies[in_float(target)] for target in targets},
        *(keep_teacher(wholes, folder, services) if wholes else ({}, ())),
    )
