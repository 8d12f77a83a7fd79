"""Stages ``table`` and ``feasibility``: what the target says of the space before anything is searched."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devices.measurement import Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.statistics import Interval
from devices.target import Target
from latency_db.builder import measured
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.keys import Workload
from latency_db.network_model import NetworkModel
from latency_db.table import LatencyTable
from pipeline.errors import BudgetError
from pipeline.export.base import Format, block_workload, format_of, network_workload
from pipeline.search.constraints import Constraints
from pipeline.search.feasibility import Feasibility
from pipeline.search.latency import TableLatencyModel
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.stages.context import Context

if TYPE_CHECKING:
    from torch import nn

Build = Callable[[], "nn.Module"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Tables:
    """One latency table per target, keyed by the target as text."""

    by_target: Mapping[str, LatencyTable]


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


def build_tables(context: Context, space: Space) -> Tables:
    """Measure every distinct block of the space on every target; what is in the database is not measured."""
    blocks = space.distinct_blocks()
    inputs = {
        "space": space.description,
        "targets": [context.conditions(target) for target in context.budgets],
        "blocks": [
            [block_workload(block, format_of(target)).identity for block in blocks]
            for target in context.budgets
        ],
    }

    def compute(folder: Path) -> Tables:
        return Tables({str(target): _table(context, space, blocks, target) for target in context.budgets})

    tables = context.work.stage("table", inputs, Tables, compute)
    for name, table in tables.by_target.items():
        failed = f", {len(table.failed)} cannot run" if table.failed else ""
        context.reporter.note(f"table        {name}: {len(table.rows)} blocks measured{failed}")
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
    context: Context, space: Space, architectures: Sequence[Architecture], target: Target
) -> list[Outcome]:
    """Measure whole networks with untrained weights; latency does not depend on what the weights learned."""
    fmt = format_of(target)
    workloads = [network_workload(space.description, architecture, fmt) for architecture in architectures]
    builds: dict[str, tuple[Build, Shape]] = {
        workload.identity: (lambda a=architecture: space.build(a), space.input_shape)  # type: ignore[misc]
        for workload, architecture in zip(workloads, architectures, strict=True)
    }
    outcomes = measure_modules(context, workloads, builds, target, f"networks on {target}")
    return [outcomes[workload.identity] for workload in workloads]


def measure_modules(
    context: Context,
    workloads: Sequence[Workload],
    builds: Mapping[str, tuple[Build, Shape]],
    target: Target,
    what: str,
) -> dict[str, Outcome]:
    """Export and measure modules by workload identity; those in the database are taken from there."""
    fmt = format_of(target)
    with context.scratch() as scratch, context.reporter.task(what, "measured") as advance:
        return measured(
            workloads,
            target,
            store=context.store,
            exporter=_exporter(builds, fmt, scratch),
            protocol=context.protocol,
            on_progress=advance,
        )


def _exporter(
    builds: Mapping[str, tuple[Build, Shape]], fmt: Format, folder: Path
) -> Callable[[Sequence[Workload]], Mapping[str, Path | Reason]]:
    def export(workloads: Sequence[Workload]) -> Mapping[str, Path | Reason]:
        import torch

        from pipeline.export.blocks import export_modules

        torch.manual_seed(0)
        modules = {}
        for workload in workloads:
            build, shape = builds[workload.identity]
            modules[workload.identity] = (build(), shape)
        return export_modules(modules, fmt, folder)

    return export


def _table(context: Context, space: Space, blocks: Sequence[Block], target: Target) -> LatencyTable:
    fmt = format_of(target)
    workloads = [block_workload(block, fmt) for block in blocks]
    builds: dict[str, tuple[Build, Shape]] = {
        workload.identity: (lambda b=block: space.build_block(b), block.input_shape)  # type: ignore[misc]
        for workload, block in zip(workloads, blocks, strict=True)
    }
    outcomes = measure_modules(context, workloads, builds, target, f"blocks on {target}")
    by_block = {block.identity: outcomes[w.identity] for block, w in zip(blocks, workloads, strict=True)}
    return LatencyTable.of(target, by_block)


def _feasibility(context: Context, space: Space, tables: Tables) -> Feasible:
    reference = space.reference()
    networks = _calibration_networks(context, space, tables, reference)
    block_names = [[block.identity for block in space.blocks(network)] for network in networks]
    models, limits, calibration = {}, {}, list[MeasuredNetwork]()
    for target, budget in context.budgets.items():
        table = tables.by_target[str(target)]
        outcomes = measure_networks(context, space, networks, target)
        ran = [
            (network, names, outcome)
            for network, names, outcome in zip(networks, block_names, outcomes, strict=True)
            if isinstance(outcome, Measurement) and outcome.verdict is not Verdict.INVALID
        ]
        model = NetworkModel.fit(
            table, [names for _, names, _ in ran], [outcome.latency.value_ns for _, _, outcome in ran]
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


def _calibration_networks(
    context: Context, space: Space, tables: Tables, reference: Architecture
) -> list[Architecture]:
    """Reference, fastest and slowest by the plain sum on each target, and random members; each once."""
    chosen = {reference.identity: reference}
    for table in tables.by_target.values():
        for largest in (False, True):
            extreme = space.extreme(lambda block, t=table: t.latency_ns(block.identity), largest=largest)  # type: ignore[misc]
            chosen[extreme.identity] = extreme
    generator = random.Random(context.recipe.seed)
    wanted = min(context.recipe.measure.calibration_networks + len(chosen), space.count())
    while len(chosen) < wanted:
        drawn = space.sample(generator)
        chosen[drawn.identity] = drawn
    return list(chosen.values())


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
