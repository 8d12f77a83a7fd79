"""Stages ``table`` and ``feasibility``: what the target says of the space before anything is searched."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from devices.measurement import Measurement, MeasurementFailure, Outcome, Verdict
from devices.statistics import Interval
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.network_model import NetworkModel
from latency_db.table import LatencyTable
from pipeline.errors import BudgetError
from pipeline.export.base import block_workload, exporter_identity, format_of, network_workload
from pipeline.search.constraints import Constraints
from pipeline.search.feasibility import Feasibility
from pipeline.search.latency import TableLatencyModel
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.stages.context import Context
from pipeline.stages.measuring import Part, measure_parts
from pipeline.stages.space import Task
from pipeline.stages.teacher_parts import TeacherLatency, teacher_latency, teacher_parts
from pipeline.tables.traits import traits_of


@dataclass(frozen=True)
class Tables:
    """One latency table per target, and the teacher's latencies there; keyed by the target as text."""

    by_target: Mapping[str, LatencyTable]
    teacher: Mapping[str, TeacherLatency]


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network that was measured on a target, beside what was predicted for it."""

    architecture: Architecture
    target: str
    measured: Interval
    verdict: Verdict
    predicted: Estimate


@dataclass(frozen=True)
class Feasible:
    """Budgets that can be met: fitted models, limits in nanoseconds, and the certificate behind them."""

    models: Mapping[str, NetworkModel]
    limits_ns: Mapping[str, float]
    reference: Architecture
    certificate: Feasibility
    calibration: tuple[MeasuredNetwork, ...]


def build_tables(context: Context, task: Task) -> Tables:
    """Measure every distinct block of the space, and the teacher, on every target.

    What is in the database is not measured again.
    """
    space = task.space
    blocks = space.distinct_blocks()
    inputs = {
        "space": space.description,
        "teacher": task.teacher.summary.digest,
        "targets": [context.conditions(target) for target in context.budgets],
        "exporters": [exporter_identity(format_of(target)) for target in context.budgets],
        "blocks": [
            [block_workload(block, format_of(target)).identity for block in blocks]
            for target in context.budgets
        ],
    }

    tables = context.work.stage("table", inputs, Tables, lambda folder: _measure_blocks(context, task))
    for name, table in tables.by_target.items():
        failed = f", {len(table.failed)} cannot run" if table.failed else ""
        whole = tables.teacher[name].whole or "cannot run there"
        context.reporter.note(
            f"table        {name}: {len(table.rows)} blocks measured{failed}; the teacher: {whole}"
        )
    return tables


def check_feasibility(context: Context, space: Space, tables: Tables) -> Feasible:
    """Measure a few whole networks, fit the latency models, and compare the space with the budgets.

    Raises:
        BudgetError: no member of the space can keep every budget.
    """
    inputs = {
        "space": space.description,
        "tables": {
            name: {block: asdict(row) for block, row in table.rows.items()}
            for name, table in tables.by_target.items()
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
        wider = "or give the space smaller choices"
        raise BudgetError(
            error.what, why=error.why, fix=f"allow {_nearest(context, value)}, {wider}"
        ) from None
    return value


def constraints_of(space: Space, value: Feasible) -> Constraints:
    """The constraints of the search, from what the feasibility stage found."""
    models = {name: TableLatencyModel(space, model) for name, model in value.models.items()}
    return Constraints(space, models, value.limits_ns)


def measure_networks(
    context: Context, space: Space, architectures: Sequence[Architecture]
) -> dict[Target, list[Outcome]]:
    """Measure whole networks on every target, untrained: latency does not depend on the weights' values."""

    def part(architecture: Architecture, target: Target) -> Part:
        workload = network_workload(space.description, architecture, format_of(target))
        return Part(workload, lambda: space.build(architecture), space.input_shape)

    parts = {target: [part(each, target) for each in architectures] for target in context.budgets}
    outcomes = measure_parts(context, parts, "networks")
    return {
        target: [outcomes[target][part.workload.identity] for part in its_parts]
        for target, its_parts in parts.items()
    }


def _measure_blocks(context: Context, task: Task) -> Tables:
    blocks = task.space.distinct_blocks()

    def part(block: Block, target: Target) -> Part:
        workload = block_workload(block, format_of(target))
        return Part(workload, lambda: task.space.build_block(block), block.input_shape)

    parts = {target: [part(block, target) for block in blocks] for target in context.budgets}
    teachers = {target: teacher_parts(task, format_of(target)) for target in context.budgets}
    outcomes = measure_parts(
        context, {target: [*parts[target], *teachers[target].values()] for target in parts}, "blocks"
    )
    return Tables(
        {
            str(target): LatencyTable.of(
                target,
                {
                    block.identity: outcomes[target][part.workload.identity]
                    for block, part in zip(blocks, its_parts, strict=True)
                },
                traits_of(blocks),
            )
            for target, its_parts in parts.items()
        },
        {str(target): teacher_latency(teacher, outcomes[target]) for target, teacher in teachers.items()},
    )


def _feasibility(context: Context, space: Space, tables: Tables) -> Feasible:
    reference = space.reference()
    chosen = _chosen_networks(space, tables, reference)
    networks = chosen + _drawn_networks(context, space, chosen)
    block_names = [[block.identity for block in space.blocks(network)] for network in networks]
    models, limits, calibration = {}, {}, list[MeasuredNetwork]()
    measured_on = measure_networks(context, space, networks)
    for target, budget in context.budgets.items():
        table, outcomes = tables.by_target[str(target)], measured_on[target]
        ran = [
            (network, names, outcome)
            for network, names, outcome in zip(networks, block_names, outcomes, strict=True)
            if isinstance(outcome, Measurement) and outcome.verdict is not Verdict.INVALID
        ]
        drawn = [index for index, (network, *_) in enumerate(ran) if network not in chosen]
        model = NetworkModel.fit(
            table,
            [names for _, names, _ in ran],
            [outcome.latency.value_ns for _, _, outcome in ran],
            scored=drawn or None,
            paces_ns=[outcome.pace_ns for _, _, outcome in ran],
        )
        models[str(target)] = model
        limits[str(target)] = budget.limit_given(_reference_ns(target, outcomes[0]))
        estimates = model.estimate([names for _, names, _ in ran])
        calibration += [
            MeasuredNetwork(network, str(target), outcome.latency, outcome.verdict, estimate)
            for (network, _, outcome), estimate in zip(ran, estimates, strict=True)
        ]
    latency_models = {name: TableLatencyModel(space, model) for name, model in models.items()}
    certificate = Constraints(space, latency_models, limits).certificate
    return Feasible(models, limits, reference, certificate, tuple(calibration))


def _chosen_networks(space: Space, tables: Tables, reference: Architecture) -> list[Architecture]:
    """Reference, fastest and slowest by the plain sum on each target; each once."""
    chosen = {reference.identity: reference}
    for table in tables.by_target.values():
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
    reasons = [outcome.reason] if isinstance(outcome, MeasurementFailure) else list(outcome.reasons)
    raise EstimateError(
        f"the reference network of the space has no latency on {target}",
        why="; ".join(f"{reason.code}: {reason.detail}" for reason in reasons),
        fix="run again; if it stays so, the target cannot run this space",
    )


def _tell(context: Context, value: Feasible) -> None:
    budgets = {str(target): budget for target, budget in context.budgets.items()}
    for found in value.certificate.ranges:
        context.reporter.note(
            f"feasibility  {found.target}: fastest {found.fastest_estimate}, slowest "
            f"{found.slowest_estimate}, budget {budgets[found.target]} = {found.limit_ns / 1e6:.4f} ms"
        )


def _nearest(context: Context, value: Feasible) -> str:
    """The nearest budgets that can be kept together, in the form the recipe uses."""
    parts = []
    for target, budget in context.budgets.items():
        nearest_ns = value.certificate.nearest_limits_ns[str(target)]
        if budget.relative is None:
            parts.append(f"budget_ms = {math.ceil(nearest_ns / 100) / 10_000:.4f} on {target}")
        else:
            factor = nearest_ns / value.limits_ns[str(target)] * budget.relative
            parts.append(f'budget = "{math.ceil(factor * 100) / 100:.2f}x" on {target}')
    return " and ".join(parts)
