"""From workloads to outcomes: what is stored is looked up, the rest is exported, measured and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.measurement import (
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.target import Target
from latency_db.store.keys import Key, Workload

if TYPE_CHECKING:
    from devices.measuring import Job
    from latency_db.store.store import Store

BATCH = 64
"""Workloads per export call and per measured batch: what shares start-up costs, and what a kill can lose."""

REPEATS = 2
"""How often an invalid measurement is repeated at once, before it is returned as it is."""

Exporter = Callable[[Sequence[Workload]], Mapping[str, Path | Reason]]
"""Workload identity -> artifact file, or the reason why the workload cannot be exported."""

_log = logging.getLogger(__name__)


class Measurer(Protocol):
    """What measures artifacts on a target; the room ``devices.measuring`` is one."""

    def probe(self, target: Target, /) -> tuple[RuntimeIdentity, DeviceIdentity]:
        """Which runtime on which device a measurement on ``target`` would use."""
        ...

    def measure(
        self,
        jobs: Sequence[Job],
        target: Target,
        protocol: MeasuringProtocol,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_outcome: Callable[[str, Outcome], None] | None = None,
    ) -> Mapping[str, Outcome]:
        """One outcome per job, by name."""
        ...


def measured(
    workloads: Sequence[Workload],
    target: Target,
    *,
    store: Store,
    exporter: Exporter,
    protocol: MeasuringProtocol,
    on_progress: Callable[[int, int], None] | None = None,
    measurer: Measurer | None = None,
    again: bool = False,
    deadline_s: float | None = None,
) -> dict[str, Outcome]:
    """The outcome of every workload on ``target``, by identity.

    Only what is not stored is exported and measured. Each outcome is stored as soon as it is known (one that
    cannot be exported as a failure), so a killed call goes on where it ended, and a second call measures and
    exports nothing. A measurement that is invalid is repeated ``REPEATS`` times; if it stays so, it is
    returned, and the next call repeats it, as it does a failure that may pass.

    Args:
        workloads: what to measure; repeated identities are measured once.
        target: where.
        store: where outcomes are found and kept.
        exporter: called with up to ``BATCH`` workloads at a time.
        protocol: how to measure.
        on_progress: called with the number of workloads done, counting a batch by the share of its launches
            that is done, and their total.
        measurer: ``devices.measuring`` unless given.
        again: measure what is stored too, for example to see how well measurements repeat.
        deadline_s: by ``time.monotonic``; no batch is begun after it, and what was not measured is left out
            of the result.

    Raises:
        StoreError: an outcome cannot be read or stored.
        TargetError, MeasurementError: the target cannot be reached or measured on.
        ValueError: the exporter leaves a workload out.
    """
    measurer = measurer or _default_measurer()
    runtime, device = measurer.probe(target)
    distinct = {workload.identity: workload for workload in workloads}
    outcomes: dict[str, Outcome] = {}
    if not again:
        outcomes = stored(workloads, target, store=store, protocol=protocol, measurer=measurer)
    absent = [workload for identity, workload in distinct.items() if identity not in outcomes]
    if absent and not again:
        why = store.explain_miss(Key.of(absent[0], runtime, device, protocol))
        _log.info(
            "%d of %d workloads to measure on %s; the first: %s", len(absent), len(distinct), target, why
        )

    def keep(identity: str, outcome: Outcome) -> None:
        ran_on = (outcome.runtime, outcome.device) if isinstance(outcome, Measurement) else (runtime, device)
        store.add(distinct[identity], *ran_on, protocol, outcome)
        outcomes[identity] = outcome

    shown = 0

    def report(known: int, jobs: int = 0, launches_done: int = 0, launches: int = 1) -> None:
        nonlocal shown
        # Launches are added where they disagree; what was shown as done stays so.
        shown = max(shown, known + jobs * launches_done // launches)
        if on_progress is not None:
            on_progress(shown, len(distinct))

    report(len(outcomes))
    for start in range(0, len(absent), BATCH):
        if deadline_s is not None and time.monotonic() >= deadline_s:
            _log.info("the time is up: %d workloads were not measured on %s", len(absent) - start, target)
            break
        jobs = _exported(absent[start : start + BATCH], exporter, str(target), keep)
        progress = partial(report, len(outcomes), len(jobs))
        measurer.measure(jobs, target, protocol, on_progress=progress, on_outcome=keep)
        for _ in range(REPEATS):
            if invalid := [job for job in jobs if _is_invalid(outcomes[job.name])]:
                measurer.measure(invalid, target, protocol, on_outcome=keep)
        report(len(outcomes))
    return {identity: outcomes[identity] for identity in distinct if identity in outcomes}


def stored(
    workloads: Sequence[Workload],
    target: Target,
    *,
    store: Store,
    protocol: MeasuringProtocol,
    measurer: Measurer | None = None,
) -> dict[str, Outcome]:
    """What is known already, by identity: what ``measured`` would neither export nor measure.

    Raises:
        StoreError: an outcome cannot be read.
        TargetError: the target cannot be reached.
    """
    runtime, device = (measurer or _default_measurer()).probe(target)
    found: dict[str, Outcome] = {}
    for workload in workloads:
        outcome = store.find(Key.of(workload, runtime, device, protocol))
        if outcome is not None and not (isinstance(outcome, MeasurementFailure) and outcome.passing):
            found[workload.identity] = outcome
    return found


def _exported(
    batch: Sequence[Workload], exporter: Exporter, target: str, keep: Callable[[str, Outcome], None]
) -> list[Job]:
    """Export a batch: jobs for what became a file; what did not is kept as a failure."""
    from devices.measuring import Job

    artifacts = exporter(batch)
    left_out = [workload.description for workload in batch if workload.identity not in artifacts]
    if left_out:
        raise ValueError(f"the exporter left out {', '.join(left_out)}")
    jobs = []
    for workload in batch:
        artifact = artifacts[workload.identity]
        if isinstance(artifact, Reason):
            keep(workload.identity, MeasurementFailure("", target, artifact))
        else:
            jobs.append(Job(workload.identity, artifact))
    return jobs


def _is_invalid(outcome: Outcome) -> bool:
    return isinstance(outcome, Measurement) and outcome.verdict is Verdict.INVALID


def _default_measurer() -> Measurer:
    from devices import measuring

    return measuring
