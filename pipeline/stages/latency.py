"""Stages ``table`` and ``feasibility``: what the target says of the space before anything is searched."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from devices.measurement import Measurement, MeasurementFailure, Outcome, Verdict
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models import MIN_NETWORKS, NetworkModel
from latency_db.tables import LatencyTable
from pipeline.errors import BudgetError
from pipeline.export.base import block_workload, exporter_identity, format_of
from pipeline.search.budgets.feasibility import Feasibility
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.stages.context import Context
from pipeline.stages.measuring import Part, measure_parts
from pipeline.stages.nearest import budgets_allowing
from pipeline.stages.networks import MeasuredNetwork, SeenNetwork, measure_networks
from pipeline.stages.outlook import Outlook, block_identities, fit_model
from pipeline.stages.space import Task
from pipeline.stages.teacher_parts import TeacherLatency, teacher_latency, teacher_parts
from pipeline.tables.block_sizes import sizes_of


@dataclass(frozen=True)
class Tables:
    """One latency table per target, and the teacher's latencies there; keyed by the target as text."""

    by_target: Mapping[str, LatencyTable]
    teacher: Mapping[str, TeacherLatency]


@dataclass(frozen=True)
class Feasible:
    """What the space can do on the targets.

    Attributes:
        models: network model per target.
        limits_ns: of the budgets, per target.
        reference: network to which relative budgets refer.
        certificate: fastest and slowest members; that all budgets can be kept which are not soft.
        calibration: networks that the models were fitted on.
    """

    models: Mapping[str, NetworkModel]
    limits_ns: Mapping[str, float]
    reference: Architecture
    certificate: Feasibility
    calibration: tuple[MeasuredNetwork, ...]


def build_tables(context: Context, task: Task) -> Tables:
    """Measure every distinct block of the space, and the teacher, on every target.

    What is in the database is not measured again.
    """
    inputs = {
        "space": task.space.description,
        "teacher": task.teacher.summary.digest,
        "targets": [context.conditions(target) for target in context.budgets],
        "exporters": [exporter_identity(format_of(target)) for target in context.budgets],
        "blocks": [
            [block_workload(block, format_of(target)).identity for block in task.space.distinct_blocks()]
            for target in context.budgets
        ],
    }

    def compute(folder: Path) -> Tables:
        teachers = {target: teacher_parts(task, format_of(target)) for target in context.budgets}
        extra = {target: list(parts.values()) for target, parts in teachers.items()}
        tables, outcomes = measure_blocks(context, task.space, extra)
        return Tables(
            tables,
            {str(target): teacher_latency(parts, outcomes[target]) for target, parts in teachers.items()},
        )

    tables = context.work.stage("table", inputs, Tables, compute)
    for name, table in tables.by_target.items():
        failed = f", {len(table.failed)} cannot run" if table.failed else ""
        whole = tables.teacher[name].whole or "cannot run there"
        context.reporter.note(
            f"table        {name}: {len(table.rows)} blocks measured{failed}; the teacher: {whole}"
        )
    return tables


def measure_blocks(
    context: Context, space: Space, extra: Mapping[Target, Sequence[Part]]
) -> tuple[dict[str, LatencyTable], dict[Target, dict[str, Outcome]]]:
    """The table of every target, and the outcomes of its blocks and of what is measured with them."""
    blocks = space.distinct_blocks()

    def part(block: Block, target: Target) -> Part:
        workload = block_workload(block, format_of(target))
        return Part(workload, lambda: space.build_block(block), block.input_shape)

    parts = {target: [part(block, target) for block in blocks] for target in context.budgets}
    outcomes = measure_parts(
        context, {target: [*parts[target], *extra.get(target, ())] for target in parts}, "blocks"
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


def check_feasibility(context: Context, space: Space, tables: Mapping[str, LatencyTable]) -> Feasible:
    """Measure a few whole networks, fit the latency models, and compare the space with the budgets.

    Raises:
        BudgetError: no member of the space can keep every budget.
    """
    inputs = {
        "space": space.description,
        "tables": {
            name: {block: asdict(row) for block, row in table.rows.items()} for name, table in tables.items()
        },
        "budgets": {str(target): str(budget) for target, budget in context.budgets.items()},
        "networks": context.recipe.measure.calibration_networks,
        "seed": context.recipe.seed,
    }
    value = context.work.stage(
        "feasibility", inputs, Feasible, lambda folder: _feasibility(context, space, tables)
    )
    _tell(context, value)
    try:
        value.certificate.require_reachable()
    except BudgetError as error:
        nearest = budgets_allowing(context, value.certificate.nearest_limits_ns, value.limits_ns)
        fix = f"allow {nearest}, or give the space smaller choices"
        raise BudgetError(error.what, why=error.why, fix=fix) from None
    return value


def outlook_of(context: Context, space: Space, value: Feasible) -> Outlook:
    """What a search starts from."""
    return Outlook(space, value.models, value.limits_ns, _soft(context), value.calibration)


def _feasibility(context: Context, space: Space, tables: Mapping[str, LatencyTable]) -> Feasible:
    reference = space.reference()
    chosen = _chosen_networks(space, tables, reference)
    networks = chosen + _drawn_networks(context, space, chosen)
    models, limits, calibration = {}, {}, list[MeasuredNetwork]()
    measured_on = measure_networks(context, space, networks)
    for target, budget in context.budgets.items():
        outcomes = measured_on[target]
        seen = [
            network
            for each, outcome in zip(networks, outcomes, strict=True)
            if (network := SeenNetwork.of(each, target, outcome, scored=each not in chosen))
        ]
        if len(seen) < min(MIN_NETWORKS, len(outcomes)):
            raise EstimateError(
                f"only {len(seen)} of {len(outcomes)} networks have a valid measurement on {target}",
                why=next(_reasons(o) for o in outcomes if SeenNetwork.of(reference, target, o) is None),
                fix="leave the device to the measurement alone and run again: only these are measured again",
            )
        model = fit_model(space, tables[str(target)], seen)
        models[str(target)] = model
        limits[str(target)] = budget.limit_given(_reference_ns(target, outcomes[0]))
        estimates = model.estimate([block_identities(space, each.architecture) for each in seen])
        calibration += map(MeasuredNetwork.beside, seen, estimates)
    certificate = Outlook(space, models, limits, _soft(context), ()).constraints.certificate
    return Feasible(models, limits, reference, certificate, tuple(calibration))


def _soft(context: Context) -> frozenset[str]:
    return frozenset(str(target) for target, budget in context.budgets.items() if budget.soft)


def _chosen_networks(
    space: Space, tables: Mapping[str, LatencyTable], reference: Architecture
) -> list[Architecture]:
    """Reference, fastest and slowest by the plain sum on each target; each once."""
    chosen = {reference.identity: reference}
    for table in tables.values():
        for largest in (False, True):
            extreme = space.extreme(lambda block, t=table: t.latency_ns(block.identity), largest=largest)  # type: ignore[misc]
            chosen[extreme.identity] = extreme
    return list(chosen.values())


def _drawn_networks(context: Context, space: Space, chosen: Sequence[Architecture]) -> list[Architecture]:
    """Random members other than these, whose errors make the interval; each once."""
    generator = random.Random(context.recipe.seed)
    wanted = min(context.recipe.measure.calibration_networks, space.count() - len(chosen))
    drawn: dict[str, Architecture] = {}
    while len(drawn) < wanted:
        architecture = space.sample(generator)
        if architecture not in chosen:
            drawn[architecture.identity] = architecture
    return list(drawn.values())


def _reference_ns(target: Target, outcome: Outcome) -> float:
    if isinstance(outcome, Measurement) and outcome.verdict is not Verdict.INVALID:
        return outcome.latency.value_ns
    raise EstimateError(
        f"the reference network of the space has no latency on {target}",
        why=_reasons(outcome),
        fix="run again; if it stays so, the target cannot run this space",
    )


def _reasons(outcome: Outcome) -> str:
    reasons = [outcome.reason] if isinstance(outcome, MeasurementFailure) else list(outcome.reasons)
    return "; ".join(f"{reason.code}: {reason.detail}" for reason in reasons)


def _tell(context: Context, value: Feasible) -> None:
    budgets = {str(target): budget for target, budget in context.budgets.items()}
    for found in value.certificate.ranges:
        context.reporter.note(
            f"feasibility  {found.target}: fastest {found.fastest_estimate}, slowest "
            f"{found.slowest_estimate}, budget {budgets[found.target]} = "
            f"{value.limits_ns[found.target] / 1e6:.4f} ms"
        )
