"""A space's latency table on several targets, and the network model that is fitted on measured networks.

Everything that needs a table makes it here: ``lathe table build``, the stages of a run, and with ``load``
whatever only looks. What one of them measured the others find in the database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from devices.measurement import MeasurementFailure, Outcome
from devices.target import Target
from devices.words import count_of
from latency_db.errors import EstimateError
from latency_db.history import history_of, latest
from latency_db.models import MIN_NETWORKS, NetworkModel, spread
from latency_db.tables import LatencyTable, explain_missing
from pipeline.export.base import Format, block_workload, format_of
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.block_sizes import sizes_of
from pipeline.tables.building.measuring import ModuleWorkload, look_up, measure
from pipeline.tables.building.networks import SeenNetwork, fit_seen, measure_networks, network_workloads, runs
from pipeline.tables.building.plan import PlannedNetwork, calibration_plan

NETWORKS = 24
"""Whole networks that are measured beside the blocks; more hardly help (docs/results/accuracy.md)."""

_FURTHER = 2
"""How often further networks are measured in place of those that gave no latency."""


@dataclass(frozen=True)
class SpaceTable:
    """A table with its network model, and the measured networks behind that.

    Attributes:
        table: of one target.
        model: over it.
        networks: that were measured, disturbed ones too.
        left_out: why networks of the plan gave no latency, a code each.
    """

    table: LatencyTable
    model: NetworkModel
    networks: tuple[SeenNetwork, ...]
    left_out: tuple[str, ...] = ()

    @property
    def architectures(self) -> set[Architecture]:
        """Those that the model may have seen."""
        return {network.architecture for network in self.networks}

    def corrected_ns(self, network: SeenNetwork) -> float:
        """Its latency corrected for drift to the table's canary."""
        return network.measured.value_ns / self.table.slowdown(network.canary_ns)


def build(
    space: Space,
    targets: Sequence[Target],
    bench: Bench,
    *,
    networks: int = NETWORKS,
    budget_s: float | None = None,
) -> dict[Target, SpaceTable]:
    """Measure what is not stored yet of every block and of some networks, and fit the models.

    What is measured is stored at once, so that a call that was ended goes on when it is made again; targets
    whose runtimes load one format share the exports.

    Args:
        space: whose blocks and networks.
        targets: where.
        bench: where outcomes are kept.
        networks: how many whole networks, at least 6.
        budget_s: no batch of measurements is begun later than that; blocks then come before networks.

    Raises:
        EstimateError: the time was up before the last block, or too few networks gave a latency.
        TargetError, MeasurementError: a target cannot be reached or measured on.
    """
    deadline_s = None if budget_s is None else time.monotonic() + budget_s
    tables, known = measure_blocks(space, targets, bench, networks=networks, deadline_s=deadline_s)
    return fit_networks(space, tables, bench, networks=networks, known=known, deadline_s=deadline_s)


def measure_blocks(
    space: Space,
    targets: Sequence[Target],
    bench: Bench,
    *,
    networks: int,
    beside: Mapping[Target, Sequence[ModuleWorkload]] | None = None,
    deadline_s: float | None = None,
) -> tuple[dict[Target, LatencyTable], dict[Target, dict[str, Outcome]]]:
    """The table of every target, and the outcomes of all that was measured, by workload identity.

    Args:
        space: whose blocks.
        targets: where.
        bench: where outcomes are kept.
        networks: of the plan that are measured among the blocks, so that ``fit_networks`` finds them: spread
            over all batches they differ from the blocks as a network to come will.
        beside: what else is measured, on these targets or others.
        deadline_s: by ``time.monotonic``; blocks then come before networks.

    Raises:
        EstimateError: the time was up before the last block.
        TargetError, MeasurementError: a target cannot be reached or measured on.
    """
    blocks_first = deadline_s is not None
    wanted = {
        target: table_workloads(space, format_of(target), networks, blocks_first=blocks_first)
        for target in targets
    }
    for target, workloads in (beside or {}).items():
        wanted.setdefault(target, []).extend(workloads)
    outcomes = measure(bench, wanted, "blocks and networks", deadline_s=deadline_s)
    return {target: _table(space, target, bench, outcomes[target]) for target in targets}, outcomes


def fit_networks(
    space: Space,
    tables: Mapping[Target, LatencyTable],
    bench: Bench,
    *,
    networks: int,
    known: Mapping[Target, Mapping[str, Outcome]] | None = None,
    deadline_s: float | None = None,
) -> dict[Target, SpaceTable]:
    """Measure the first networks of the plan that run on each target, and fit its model.

    In place of those that give no latency further ones are measured.

    Args:
        space: whose networks.
        tables: of every target.
        bench: where outcomes are kept.
        networks: how many, at least 6; all of a space that has fewer.
        known: outcomes of ``measure_blocks``, which are not measured again although they were disturbed.
        deadline_s: by ``time.monotonic``.

    Raises:
        EstimateError: too few networks gave a latency.
        TargetError, MeasurementError: a target cannot be reached or measured on.
    """
    plan = calibration_plan(space)
    rest = {target: _feasible(space, table, plan) for target, table in tables.items()}
    seen: dict[Target, list[SeenNetwork]] = {target: [] for target in tables}
    failed: dict[Target, list[Outcome | None]] = {target: [] for target in tables}
    measured: dict[Target, list[Outcome | None]] = {target: [] for target in tables}
    for _ in range(1 + _FURTHER):
        due = {target: rest[target][: networks - len(seen[target])] for target in tables}
        due = {target: its_due for target, its_due in due.items() if its_due}
        if not due:
            break
        outcomes = measure_networks(
            bench,
            space,
            {target: [each.architecture for each in its_due] for target, its_due in due.items()},
            known=known,
            deadline_s=deadline_s,
        )
        for target, its_due in due.items():
            rest[target] = rest[target][len(its_due) :]
            its_seen, its_failed = _sorted_out(target, its_due, outcomes[target])
            seen[target] += its_seen
            failed[target] += its_failed
            measured[target] += outcomes[target]
    return {
        target: _fitted(
            space,
            table,
            seen[target],
            failed[target],
            plan=plan,
            bench=bench,
            until=latest(measured[target]),
        )
        for target, table in tables.items()
    }


def load(space: Space, target: Target, bench: Bench) -> SpaceTable:
    """The table and model from what is stored for the target as it is now; nothing is measured.

    Raises:
        EstimateError: blocks are missing, or too few networks are stored; the difference to what is stored
            is explained.
        TargetError: the target cannot be reached to see what it is.
    """
    fmt = format_of(target)
    workloads = [block_workload(block, fmt) for block in space.distinct_blocks()]
    table = _table(space, target, bench, look_up(bench, target, workloads, disturbed=True))
    plan = calibration_plan(space)
    feasible = _feasible(space, table, plan)
    there: list[PlannedNetwork] = []
    outcomes: list[Outcome] = []
    for start in range(0, len(feasible), NETWORKS):
        planned = feasible[start : start + NETWORKS]
        parts = network_workloads(space, [each.architecture for each in planned], fmt)
        found = look_up(bench, target, [part.workload for part in parts], disturbed=True)
        if not found:
            break
        for network, part in zip(planned, parts, strict=True):
            if part.workload.identity in found:
                there.append(network)
                outcomes.append(found[part.workload.identity])
    seen, failed = _sorted_out(target, there, outcomes)
    return _fitted(space, table, seen, failed, plan=plan, bench=bench, until=latest(outcomes))


def described(table: LatencyTable) -> str:
    """How many blocks have a latency, were disturbed, cannot run, or are missing, in words."""
    counts = [f"{count_of(len(table.rows), 'block')} measured"]
    counts += [f"{len(table.disturbed)} of them disturbed"] if table.disturbed else []
    counts += [f"{len(table.failed)} cannot run"] if table.failed else []
    counts += [f"{len(table.missing)} missing: run again to measure them"] if table.missing else []
    return ", ".join(counts)


def table_workloads(
    space: Space, fmt: Format, networks: int, *, blocks_first: bool = False
) -> list[ModuleWorkload]:
    """What a table of the space needs: every block, and the first networks of the plan among them."""
    blocks = [
        ModuleWorkload(
            block_workload(block, fmt),
            lambda block=block: space.build_block(block),  # type: ignore[misc]
            block.input_shape,
        )
        for block in space.distinct_blocks()
    ]
    architectures = [each.architecture for each in calibration_plan(space)[:networks]]
    planned = network_workloads(space, architectures, fmt)
    return blocks + planned if blocks_first else spread(blocks, planned)


def _table(space: Space, target: Target, bench: Bench, outcomes: Mapping[str, Outcome]) -> LatencyTable:
    """The table of a target, from outcomes by workload identity.

    Raises:
        EstimateError: a block has no outcome.
    """
    blocks = space.distinct_blocks()
    workloads = {block: block_workload(block, format_of(target)) for block in blocks}
    absent: list[Block] = [block for block in blocks if workloads[block].identity not in outcomes]
    if absent:
        why = explain_missing(
            workloads[absent[0]], target, store=bench.store, protocol=bench.protocol, measurer=bench.measurer
        )
        raise EstimateError(
            f"the latency table of {target} lacks {len(absent)} of {len(blocks)} blocks",
            why=why,
            fix="run 'lathe table build' for this space and target: it measures only what is missing",
        )
    rows = {block.identity: outcomes[workload.identity] for block, workload in workloads.items()}
    return LatencyTable.of(target, rows, sizes_of(blocks, space))


def _feasible(space: Space, table: LatencyTable, plan: Sequence[PlannedNetwork]) -> list[PlannedNetwork]:
    return [each for each in plan if runs(space, table, each.architecture)]


def _sorted_out(
    target: Target, planned: Sequence[PlannedNetwork], outcomes: Sequence[Outcome | None]
) -> tuple[list[SeenNetwork], list[Outcome | None]]:
    """The networks that have a latency, and the outcomes of the others."""
    seen, others = [], []
    for network, outcome in zip(planned, outcomes, strict=True):
        found = outcome and SeenNetwork.of(network.architecture, target, outcome, scored=network.drawn)
        if found:
            seen.append(found)
        else:
            others.append(outcome)
    return seen, others


def _fitted(
    space: Space,
    table: LatencyTable,
    seen: Sequence[SeenNetwork],
    failed: Sequence[Outcome | None],
    *,
    plan: Sequence[PlannedNetwork],
    bench: Bench,
    until: datetime | None,
) -> SpaceTable:
    """The model is for the machine as it usually is, by its history when the table was measured.

    What is measured later changes no estimate: the same measurements choose the same student.
    """
    usable = [each for each in seen if runs(space, table, each.architecture)]
    failures = [each for each in failed if isinstance(each, MeasurementFailure)]
    needed = MIN_NETWORKS
    if space.count() < MIN_NETWORKS:
        needed = len(_feasible(space, table, plan)) or 1
    if len(usable) < needed:
        reasons = [f"{each.reason.code}: {each.reason.detail}" for each in failures]
        raise EstimateError(
            f"{table.target} has latencies of only {count_of(len(usable), 'whole network')}, "
            f"and a latency model needs {needed}",
            why=next(iter(reasons), f"the others of the {len(plan)} that are planned were not measured"),
            fix="run 'lathe table build', or the same command again: it measures only what is missing",
        )
    _, device = bench.measurer.probe(table.target)
    model = fit_seen(space, table, usable).at_another_time(history_of(bench.store, device, until).between)
    return SpaceTable(table, model, tuple(usable), tuple(each.reason.code for each in failures))
