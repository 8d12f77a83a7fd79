"""From workloads to outcomes: what is stored is looked up, the rest is exported, measured and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.inventory import members_of
from devices.measurement import (
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
    RuntimeIdentity,
)
from devices.target import Target
from devices.words import count_of
from latency_db.store.keys import Key, Workload
from latency_db.tables.quiet import wait_for_quiet, what_disturbs

if TYPE_CHECKING:
    from devices.measuring import Job, OtherLoad
    from latency_db.store.store import Store

FIRST_BATCH, SMALLEST_BATCH, BATCH = 16, 8, 64
"""Workloads per export call and per measured batch, which share what it costs to start processes.

A launch costs a quarter of a second, and 60 ms for each small model in it: batches of 16 take 18 % longer
than those of 64.
"""

BATCH_S = 20.0
"""How long a batch should take: what a kill can lose."""

REPEATS = 2
"""How often what was disturbed is measured again in the end, before it is returned as it is."""

Exporter = Callable[[Sequence[Workload]], Mapping[str, Path | Reason]]
"""Workload identity -> artifact file, or the reason why the workload cannot be exported."""

_log = logging.getLogger(__name__)


class Measurer(Protocol):
    """What measures artifacts on a target; the room ``devices.measuring`` is one."""

    def probe(self, target: Target, /) -> tuple[RuntimeIdentity, DeviceIdentity]:
        """Which runtime on which device a measurement on ``target`` would use."""
        ...

    def adapted(self, protocol: MeasuringProtocol, target: Target, /) -> MeasuringProtocol:
        """The protocol that measurements on ``target`` are made by, when this one is asked for."""
        ...

    def busy_with(self, device: str, /) -> OtherLoad:
        """What else a device is doing right now."""
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
    on_state: Callable[[str], None] | None = None,
    measurer: Measurer | None = None,
    again: bool = False,
    deadline_s: float | None = None,
) -> dict[str, Outcome]:
    """The outcome of every workload on ``target``, by identity.

    Only what is not stored is exported and measured. Each outcome is stored as soon as it is known (one that
    cannot be exported as a failure), so a killed call goes on where it ended, and a second call measures and
    exports nothing. Everything is looked up and stored under the protocol that the target's runtime follows.
    Of a pool all members measure, each in its own name.

    An invalid measurement, or a failure that may pass, settles nothing. When all else is done, these
    workloads are measured again up to ``REPEATS`` times (failures once), once the machine is quiet
    (``wait_for_quiet``). What stays disturbed has the narrowest interval that was measured, now or
    earlier, and the next call tries again.

    Args:
        workloads: what to measure; repeated identities are measured once.
        target: where.
        store: where outcomes are found and kept.
        exporter: called with up to ``BATCH`` workloads at a time, as many times that as a pool has members;
            its files are needed until this returns.
        protocol: how to measure, as far as the runtime can follow it.
        on_progress: called with the number of workloads done, counting a batch by the share of its launches
            that is done, and their total.
        on_state: called with a line when the machine is busy, and when something is measured again.
        measurer: ``devices.measuring`` unless given.
        again: measure what is stored too, for example to see how well measurements repeat.
        deadline_s: by ``time.monotonic``; no batch is begun after it, and what was not measured is left out
            of the result.

    Raises:
        StoreError: an outcome cannot be read or stored.
        TargetError, MeasurementError: the target cannot be reached or measured on.
        ValueError: the exporter leaves a workload out.
    """
    measurer = measurer or default_measurer()
    runtime, device = measurer.probe(target)
    protocol = measurer.adapted(protocol, target)
    tell = on_state or _log.info
    distinct = {workload.identity: workload for workload in workloads}
    outcomes = {} if again else stored(workloads, target, store=store, protocol=protocol, measurer=measurer)
    absent = [workload for identity, workload in distinct.items() if identity not in outcomes]
    if absent:
        if not again:
            why = store.explain_miss(Key.of(absent[0], runtime, device, protocol))
            _log.info(
                "%d of %d workloads to measure on %s; the first: %s", len(absent), len(distinct), target, why
            )
        _warn(measurer, target, device.cores, tell)

    def keep(identity: str, outcome: Outcome) -> None:
        store.add(distinct[identity], *_ran_on(outcome, runtime, protocol, measurer), outcome)
        outcomes[identity] = _better(outcomes.get(identity), outcome)

    members = len(members_of(target.device))
    shown = 0

    def report(known: int, jobs: int = 0, launches_done: int = 0, launches: int = 1) -> None:
        nonlocal shown
        # Launches are added where they disagree; what was shown as done stays so.
        shown = max(shown, known + jobs * launches_done // launches)
        if on_progress is not None:
            on_progress(shown, len(distinct))

    def time_is_up() -> bool:
        return deadline_s is not None and time.monotonic() >= deadline_s

    report(len(outcomes))
    jobs: list[Job] = []
    size = FIRST_BATCH
    while absent:
        if time_is_up():
            tell(f"the time is up: {count_of(len(absent), 'workload')} not measured on {target}")
            break
        began_s = time.monotonic()
        batch = _exported(absent[: size * members], exporter, str(target), keep)
        absent = absent[size * members :]
        jobs += batch
        measurer.measure(
            batch,
            target,
            protocol,
            on_progress=partial(report, len(outcomes), len(batch)),
            on_outcome=keep,
        )
        report(len(outcomes))
        size = next_size(size, time.monotonic() - began_s)
    for repeat in range(REPEATS):
        unsettled = [job for job in jobs if _deserves_another(outcomes[job.name], repeat)]
        if not unsettled or time_is_up() or not wait_for_quiet(measurer, target, tell, deadline_s):
            break
        tell(f"measuring {len(unsettled)} of {len(distinct)} again on {target}: {_why(unsettled, outcomes)}")
        for start in range(0, len(unsettled), size * members):
            if not time_is_up():
                part = unsettled[start : start + size * members]
                measurer.measure(part, target, protocol, on_outcome=keep)
    unsettled = [] if again else [job for job in jobs if not is_settled(outcomes[job.name])]
    for job in unsettled:
        best = store.find_disturbed(Key.of(distinct[job.name], runtime, device, protocol))
        outcomes[job.name] = best or outcomes[job.name]
    return {identity: outcomes[identity] for identity in distinct if identity in outcomes}


def _ran_on(
    outcome: Outcome, runtime: RuntimeIdentity, protocol: MeasuringProtocol, measurer: Measurer
) -> tuple[RuntimeIdentity, DeviceIdentity, MeasuringProtocol]:
    """On what an outcome rests: the very machine, of a pool the member."""
    if isinstance(outcome, Measurement):
        return outcome.runtime, outcome.device, outcome.protocol
    return runtime, measurer.probe(Target.parse(outcome.target))[1], protocol


def _warn(measurer: Measurer, target: Target, cores: int, tell: Callable[[str], None]) -> None:
    """Say beforehand what makes measuring take longer."""
    if crowded := target.warning(cores):
        tell(crowded)
    if busy := what_disturbs(measurer, target):
        tell(f"{target.device} is busy: {busy}; measuring takes longer, and intervals get wider")


def next_size(size: int, took_s: float) -> int:
    """How many workloads to measure next, when so many took so long: as many as last ``BATCH_S``."""
    return min(max(round(size * BATCH_S / max(took_s, 1e-3)), SMALLEST_BATCH), BATCH)


def stored(
    workloads: Sequence[Workload],
    target: Target,
    *,
    store: Store,
    protocol: MeasuringProtocol,
    measurer: Measurer | None = None,
    disturbed: bool = False,
) -> dict[str, Outcome]:
    """What is known already, by identity: what ``measured`` would neither export nor measure.

    Args:
        workloads: what to look up.
        target: where.
        store: where outcomes are kept.
        protocol: how to measure, as far as the runtime can follow it.
        measurer: ``devices.measuring`` unless given.
        disturbed: of workloads without a settled outcome, give the measurement that was disturbed the
            least, if there is one.

    Raises:
        StoreError: an outcome cannot be read.
        TargetError: the target cannot be reached.
    """
    measurer = measurer or default_measurer()
    runtime, device = measurer.probe(target)
    protocol = measurer.adapted(protocol, target)
    found: dict[str, Outcome] = {}
    for workload in workloads:
        key = Key.of(workload, runtime, device, protocol)
        outcome = store.find(key)
        if outcome is None and disturbed:
            outcome = store.find_disturbed(key)
        if outcome is not None:
            found[workload.identity] = outcome
    return found


def explain_missing(
    workload: Workload,
    target: Target,
    *,
    store: Store,
    protocol: MeasuringProtocol,
    measurer: Measurer | None = None,
) -> str:
    """Why ``stored`` gives nothing for a workload, in a sentence that names it.

    Raises:
        StoreError, TargetError: as of ``stored``.
    """
    measurer = measurer or default_measurer()
    key = Key.of(workload, *measurer.probe(target), measurer.adapted(protocol, target))
    return f"{workload.description}: {store.explain_miss(key)}"


def is_settled(outcome: Outcome) -> bool:
    """Whether measuring again would only find the same: not a wide interval, no passing failure."""
    if isinstance(outcome, MeasurementFailure):
        return not outcome.passing
    return outcome.sharp


def _deserves_another(outcome: Outcome, repeats: int) -> bool:
    """Whether to measure it again after so many repeats: what timed out takes too long for more than one."""
    return not is_settled(outcome) and (repeats == 0 or isinstance(outcome, Measurement))


def default_measurer() -> Measurer:
    """The devices themselves."""
    from devices import measuring

    return measuring


def _better(known: Outcome | None, new: Outcome) -> Outcome:
    """Of two outcomes of one call the settled one, else the measurement with the narrower interval."""
    if known is None or is_settled(new) or isinstance(known, MeasurementFailure):
        return new
    if isinstance(new, MeasurementFailure):
        return known
    return min(known, new, key=lambda each: each.latency.relative_width)


def _why(jobs: Iterable[Job], outcomes: Mapping[str, Outcome]) -> str:
    """The codes of what disturbed them, the most frequent first."""
    codes: dict[str, int] = {}
    for job in jobs:
        outcome = outcomes[job.name]
        reasons = [outcome.reason] if isinstance(outcome, MeasurementFailure) else outcome.reasons
        for code in {reason.code for reason in reasons}:
            codes[code] = codes.get(code, 0) + 1
    return ", ".join(sorted(codes, key=lambda code: (-codes[code], code)))


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
