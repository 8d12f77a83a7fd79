"""A target's latencies from few measurements there and the tables of other targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Generic, TypeGuard, TypeVar

import numpy as np

from devices.measurement import Measurement, MeasurementFailure, Outcome
from devices.target import Target
from devices.words import count_of
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.few_shot import MIN_SAMPLES_ALONE, Explanation, Transfer, TransferredModel
from latency_db.history import history_of, latest
from latency_db.models import NetworkModel
from latency_db.tables import TableKey
from pipeline.export.base import format_of
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import look_up, measure
from pipeline.tables.building.networks import network_workloads
from pipeline.tables.building.plan import block_names, calibration_plan
from pipeline.tables.building.space_table import table_workloads
from pipeline.tables.transfer.descriptors import describe

T = TypeVar("T")

COVERAGE = 0.9
FEWEST_NETWORKS = 3
MOST_SAMPLES = 200

_NETWORKS = 60
"""Of the plan, from which samples are taken."""
_ROUNDS = 3
"""What is chosen is measured in so many parts: each is chosen by what those before have shown."""


@dataclass(frozen=True)
class Sample(Generic[T]):
    """A block or network that was tried on the target; ``drawn`` at random, or chosen."""

    what: T
    outcome: Outcome
    drawn: bool


@dataclass(frozen=True)
class Transferred:
    """A model of a target, and what it was made of.

    Attributes:
        blocks: those that were tried on the target.
        networks: likewise.
        others: random networks that were not tried, with their estimates.
        unknown: blocks that ran on no source: nothing is said of them.
        explanation: how well the sources explain the samples.
        untried: how many more blocks and networks could be samples.
    """

    model: TransferredModel
    blocks: tuple[Sample[Block], ...]
    networks: tuple[Sample[Architecture], ...]
    others: tuple[tuple[Architecture, Estimate], ...]
    unknown: tuple[Block, ...]
    explanation: Explanation
    untried: int

    @property
    def wanted_samples(self) -> int | None:
        """How many to ask for: twice as many; None where they are explained or nothing is left."""
        tried = len(self.blocks) + len(self.networks)
        wanted = min(2 * tried, tried + self.untried, MOST_SAMPLES)
        return None if self.explanation.is_good or wanted <= tried else wanted


def transfer(
    space: Space, target: Target, sources: Sequence[NetworkModel], bench: Bench, *, samples: int
) -> Transferred:
    """Measure ``samples`` blocks and networks on the target, and estimate all others from them.

    ``drawn_of`` them are networks of the calibration plan that were drawn at random: only those make the
    interval of networks. The others are chosen, to tell most of all blocks and networks together. What is
    stored of the target already counts, and is not measured again; what is measured is stored at once.

    Args:
        space: whose blocks and networks.
        target: which is new.
        sources: tables of other targets with their network models; see ``source_models``.
        bench: where outcomes are kept.
        samples: how many to measure.

    Raises:
        EstimateError: too little could be measured.
        TargetError, MeasurementError: the target cannot be reached or measured on.
    """
    rows = _Rows(space, target, sources, bench)
    drawn = drawn_of(samples)
    rows.measure(rows.drawn_and_feasible()[:drawn])
    step = -(-(samples - drawn) // _ROUNDS)
    while chosen := rows.choose(min(step, samples - len(rows.outcomes))):
        rows.measure(chosen)
    return rows.transferred()


def drawn_of(samples: int) -> int:
    """How many of the samples are random networks: ten make an interval of 90 %, more a narrower one."""
    return min(samples // 2, 10) + max(samples - 20, 0) // 4


class _Rows:
    """The rows of a ``Transfer``, blocks before networks, with what became of those that were measured."""

    def __init__(self, space: Space, target: Target, sources: Sequence[NetworkModel], bench: Bench) -> None:
        self._space, self._target, self._sources, self._bench = space, target, sources, bench
        ran = set().union(*(source.table.rows for source in sources))
        self._blocks = [block for block in space.distinct_blocks() if block.identity in ran]
        self._unknown = [block for block in space.distinct_blocks() if block.identity not in ran]
        plan = [
            network
            for network in calibration_plan(space)[:_NETWORKS]
            if ran.issuperset(block_names(space, network.architecture))
        ]
        self._networks = [network.architecture for network in plan]
        self.drawn = [len(self._blocks) + row for row, network in enumerate(plan) if network.drawn]
        fmt = format_of(target)
        of_blocks = dict(zip(space.distinct_blocks(), table_workloads(space, fmt, 0), strict=True))
        wholes = network_workloads(space, self._networks, fmt)
        self.parts = [of_blocks[block] for block in self._blocks] + wholes
        self._transfer = Transfer(
            sources,
            [block.identity for block in self._blocks],
            describe(self._blocks),
            [block_names(space, network) for network in self._networks],
        )
        workloads = [part.workload for part in self.parts]
        found = look_up(bench, target, workloads)
        self.outcomes = {
            row: found[workload.identity]
            for row, workload in enumerate(workloads)
            if workload.identity in found
        }

    def measure(self, rows: Sequence[int]) -> None:
        """Measure those of the rows that were not measured yet."""
        due = [row for row in rows if row not in self.outcomes]
        if not due:
            return
        parts = [self.parts[row] for row in due]
        found = measure(self._bench, {self._target: parts}, "samples")[self._target]
        self.outcomes |= {row: found[self.parts[row].workload.identity] for row in due}

    def drawn_and_feasible(self) -> list[int]:
        """Random networks, in order, none of whose blocks is known to fail."""
        infeasible = self._infeasible()
        return [row for row in self.drawn if row not in infeasible]

    def choose(self, count: int) -> list[int]:
        """The rows to measure next; none where nothing is left."""
        canary_ns = _usual_canary_ns(self.outcomes.values())
        latencies = {row: _latency_ns(each, canary_ns) for row, each in self.outcomes.items()}
        latencies = dict.fromkeys(self._infeasible(), math.nan) | latencies
        index, measured_ns = np.array(list(latencies), np.int64), np.array(list(latencies.values()))
        count = min(count, len(self.parts) - len(index))
        return [int(row) for row in self._transfer.choose(index, measured_ns, count)] if count > 0 else []

    def _infeasible(self) -> list[int]:
        """Networks with a block that was tried and cannot run."""
        failed = {
            self._blocks[row].identity
            for row, outcome in self.outcomes.items()
            if row < len(self._blocks) and _cannot_run(outcome)
        }
        return [
            row
            for row, network in enumerate(self._networks, len(self._blocks))
            if failed & set(block_names(self._space, network))
        ]

    def transferred(self) -> Transferred:
        """What the samples give.

        Raises:
            EstimateError: too few of them ran.
        """
        ran = {row: each for row, each in self.outcomes.items() if isinstance(each, Measurement)}
        others = {row: each for row, each in self.outcomes.items() if isinstance(each, MeasurementFailure)}
        failed = {row: each for row, each in others.items() if _cannot_run(each)}
        missing = others.keys() - failed.keys()
        used = self._used(ran)
        drawn = [row for row in self.drawn if row in used]
        blocks = [row for row in ran if row < len(self._blocks)]
        if len(drawn) < FEWEST_NETWORKS or not blocks:
            raise EstimateError(
                f"only {count_of(len(blocks), 'block')} and {count_of(len(drawn), 'random network')} ran on "
                f"{self._target}",
                why=next((_reason(each) for each in (*failed.values(), *others.values())), ""),
                fix=f"one block and {FEWEST_NETWORKS} random networks are needed: ask for more samples",
            )
        canary_ns = _usual_canary_ns(ran.values())
        index = np.array(list(used), np.int64)
        measured_ns = np.array([_latency_ns(each, canary_ns) for each in used.values()])
        fit = self._transfer.fit(index, measured_ns, COVERAGE)
        ends_ns = {row: _ends_ns(each, canary_ns) for row, each in used.items() if not each.sharp}
        factor, coverage = self._transfer.calibrate(index, measured_ns, drawn, COVERAGE, disturbed=ends_ns)
        names = [block.identity for block in self._blocks]
        tried = {names[row] for row in self.outcomes if row < len(names) and row not in missing}
        first = next(iter(ran.values()))
        known = history_of(self._bench.store, first.device, latest(self.outcomes.values())).between
        level = known.margin(COVERAGE)
        model = TransferredModel(
            target=self._target,
            key=TableKey.of(first.runtime, first.device, first.protocol),
            sources=tuple(source.table.target for source in self._sources),
            measured={names[row]: ran[row].latency for row in blocks},
            estimated={
                name: _at_another_time(Estimate(low, value, high, COVERAGE), level)
                for name, low, value, high in zip(
                    names, fit.low_ns.tolist(), fit.blocks_ns.tolist(), fit.high_ns.tolist(), strict=True
                )
                if name not in tried
            },
            failed={names[row]: each.reason for row, each in failed.items() if row < len(names)},
            costs_ns={
                name: cost
                for row, (name, cost) in enumerate(zip(names, fit.costs_ns.tolist(), strict=True))
                if row not in failed
            },
            fixed_ns=fit.fixed_ns,
            upper_factor=math.exp(math.hypot(math.log(factor), level)),
            coverage=coverage,
            fitted_networks=sum(row >= len(names) for row in used),
            canary_ns=canary_ns,
            disturbed=tuple(names[row] for row in blocks if not ran[row].sharp),
        )
        untried = [
            network
            for row, network in enumerate(self._networks, len(names))
            if row in self.drawn and row not in self.outcomes
        ]
        return Transferred(
            model,
            self._samples(self._blocks, 0),
            self._samples(self._networks, len(names)),
            tuple(
                zip(
                    untried, model.estimate([block_names(self._space, each) for each in untried]), strict=True
                )
            ),
            tuple(self._unknown),
            self._transfer.explain(index, measured_ns),
            len(self.parts) - len(self.outcomes.keys() | set(self._infeasible())),
        )

    def _used(self, ran: dict[int, Measurement]) -> dict[int, Measurement]:
        """What is fitted on: what was not disturbed, or all of it where that would be too little."""
        sound = {row: each for row, each in ran.items() if each.sharp}
        drawn, sound_drawn = (sum(row in some for row in self.drawn) for some in (ran, sound))
        enough = (
            len(sound) > max(MIN_SAMPLES_ALONE, len(ran) / 2)
            and sound_drawn >= max(FEWEST_NETWORKS, drawn / 2)
            and min(sound) < len(self._blocks)
        )
        return sound if enough else ran

    def _samples(self, things: Sequence[T], first: int) -> tuple[Sample[T], ...]:
        return tuple(
            Sample(thing, self.outcomes[row], row in self.drawn)
            for row, thing in enumerate(things, first)
            if row in self.outcomes
        )


def _at_another_time(estimate: Estimate, level: float) -> Estimate:
    """The estimate with how far the level of all latencies differs from batch to batch, of the logarithm."""
    low, high = (math.log(end / estimate.value_ns) for end in (estimate.low_ns, estimate.high_ns))
    return replace(
        estimate,
        low_ns=estimate.value_ns * math.exp(-math.hypot(low, level)),
        high_ns=estimate.value_ns * math.exp(math.hypot(high, level)),
    )


def _cannot_run(outcome: Outcome) -> TypeGuard[MeasurementFailure]:
    """Whether it failed for good: of what timed out or was lost nothing is known."""
    return isinstance(outcome, MeasurementFailure) and not outcome.passing


def _usual_canary_ns(outcomes: Iterable[Outcome]) -> float | None:
    canaries_ns = [
        each.canary_ns for each in outcomes if isinstance(each, Measurement) and each.canary_ns is not None
    ]
    return median(canaries_ns) if canaries_ns else None


def _latency_ns(outcome: Outcome, canary_ns: float | None) -> float:
    """Latency corrected for drift to this canary; NaN of what has none."""
    if isinstance(outcome, MeasurementFailure):
        return math.nan
    return outcome.latency.value_ns / _slowdown(outcome, canary_ns)


def _ends_ns(measurement: Measurement, canary_ns: float | None) -> tuple[float, float]:
    """Its interval, corrected likewise."""
    slowdown = _slowdown(measurement, canary_ns)
    return measurement.latency.low_ns / slowdown, measurement.latency.high_ns / slowdown


def _slowdown(measurement: Measurement, canary_ns: float | None) -> float:
    return measurement.canary_ns / canary_ns if measurement.canary_ns and canary_ns else 1.0


def _reason(failure: MeasurementFailure) -> str:
    return f"{failure.reason.code}: {failure.reason.detail}"
