"""Stage ``table``: every block of the space, and the teacher, measured on every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.measurement import MeasuringProtocol, Outcome
from devices.target import Target
from latency_db.tables import LatencyTable
from pipeline.export.base import block_workload, format_of
from pipeline.spaces.base import Block, Space
from pipeline.stages.measuring import Part, Workbench, measure_parts
from pipeline.stages.services import Services
from pipeline.stages.space import SpacePlan
from pipeline.stages.targets import BoundTarget
from pipeline.stages.teacher import TeacherSummary, open_teacher
from pipeline.stages.teacher_parts import TeacherLatency, teacher_latency, teacher_parts
from pipeline.tables.block_sizes import sizes_of
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class TableInput:
    """What is measured, where, how, and what exports it (by target)."""

    plan: SpacePlan
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, Any]
    teacher: TeacherSummary = by_digest()


@dataclass(frozen=True)
class Tables:
    """One latency table per target, and the teacher's latencies there; keyed by the target as text."""

    by_target: Mapping[str, LatencyTable]
    teacher: Mapping[str, TeacherLatency]


def _told(given: TableInput, value: Tables) -> Sequence[str]:
    lines = []
    for name, table in value.by_target.items():
        failed = f", {len(table.failed)} cannot run" if table.failed else ""
        whole = value.teacher[name].whole or "cannot run there"
        lines.append(f"table        {name}: {len(table.rows)} blocks measured{failed}; the teacher: {whole}")
    return lines


@stage("table", packages=("torch",), tell=_told)
def build_tables(given: TableInput, folder: StageFolder, services: Services) -> Tables:
    """Measure every distinct block; what is in the database is not measured again."""
    bench = Workbench(services, given.protocol)
    teacher = open_teacher(given.teacher, folder).module
    targets = [each.target for each in given.targets]
    teachers = {target: teacher_parts(given.teacher, teacher, format_of(target)) for target in targets}
    extra = {target: list(parts.values()) for target, parts in teachers.items()}
    tables, outcomes = measure_blocks(bench, given.plan.space, targets, extra)
    return Tables(
        tables, {str(target): teacher_latency(parts, outcomes[target]) for target, parts in teachers.items()}
    )


def measure_blocks(
    bench: Workbench, space: Space, targets: Sequence[Target], extra: Mapping[Target, Sequence[Part]]
) -> tuple[dict[str, LatencyTable], dict[Target, dict[str, Outcome]]]:
    """The table of every target, and the outcomes of its blocks and of what is measured with them."""
    blocks = space.distinct_blocks()

    def part(block: Block, target: Target) -> Part:
        workload = block_workload(block, format_of(target))
        return Part(workload, lambda: space.build_block(block), block.input_shape)

    parts = {target: [part(block, target) for block in blocks] for target in targets}
    outcomes = measure_parts(
        bench, {target: [*parts[target], *extra.get(target, ())] for target in parts}, "blocks"
    )
    tables = {
        str(target): LatencyTable.of(
            target,
            {
                block.identity: outcomes[target][part.workload.identity]
                for block, part in zip(blocks, its_parts, strict=True)
            },
            sizes_of(blocks),
        )
        for target, its_parts in parts.items()
    }
    return tables, outcomes
