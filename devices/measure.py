"""Measures a batch of workloads on a target: several launches, failures kept apart from times."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from devices.connections import Connection
from devices.digests import file_digest
from devices.inventory import connected
from devices.launch import Job, Launcher
from devices.lock import device_lock
from devices.measurement import (
    Launch,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
)
from devices.probe import identify, probe
from devices.runtimes import find_runtime
from devices.target import Target
from devices.verdict import judge, settled

__all__ = ["Job", "measure", "probe"]

JOB_TIMEOUT_S = 120.0


def measure(
    jobs: Sequence[Job],
    target: Target,
    protocol: MeasuringProtocol,
    *,
    paired: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_outcome: Callable[[str, Outcome], None] | None = None,
    job_timeout_s: float = JOB_TIMEOUT_S,
    connection: Connection | None = None,
) -> dict[str, Outcome]:
    """Measure a batch of jobs on a target, which is held alone meanwhile.

    Each of ``protocol.launches`` launches is one fresh process that loads and times every job, in an order
    shuffled by the launch's number, so that a disturbance meets all jobs alike. Jobs whose launches disagree
    get further launches, up to ``protocol.max_launches``; the stop looks at the spread only, never at the
    level, so it favours no latency. A job that fails or ends its
    process is tried once more, alone; when it fails again it becomes a MeasurementFailure and is left out of
    the remaining launches, and the other jobs go on. Times, conditions and peak memory are read by the agent
    on the device; peak memory counts the whole process, so in a batch it is an upper bound.

    Args:
        jobs: what to time.
        target: where.
        protocol: how often and how long.
        paired: every job gets as many launches as the one that needs most, so that launches can be compared
            one by one.
        on_progress: called with the launches of jobs that are done, and their total.
        on_outcome: called with each job's name and outcome as soon as it is known.
        job_timeout_s: how long one job may take in one launch, loading included.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Returns:
        One outcome per job, by name, in the order of ``jobs``.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported, or
            the device is in use for too long.
        MeasurementError: an artifact is missing, or no process on the device gets as far as a model.
        ValueError: two jobs have one name.
    """
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError("the names of the jobs of a batch must differ")
    runtime = find_runtime(target.runtime)
    runtime.check(target)
    outcomes: dict[str, Outcome] = {}
    launches: dict[Job, list[Launch]] = {job: [] for job in jobs}
    done, total = 0, len(jobs) * protocol.launches

    def count(launches_done: int = 1) -> None:
        nonlocal done
        done += launches_done
        if on_progress is not None:
            on_progress(done, total)

    def finish(job: Job, outcome: Outcome) -> None:
        outcomes[job.name] = outcome
        if on_outcome is not None:
            on_outcome(job.name, outcome)

    def fail(job: Job, reason: Reason) -> None:
        finish(job, MeasurementFailure(digests[job], str(target), reason))
        count(max(0, protocol.launches - len(launches[job])))

    with connected(target.device, connection) as device, device_lock(target.device):
        identity = probe(target) if connection is None else identify(target, device)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        launcher = Launcher(device, target, runtime, protocol, job_timeout_s, count)
        for job in jobs:
            device.push(job.artifact)
        digests = {job: file_digest(job.artifact) for job in jobs}
        for job in jobs:
            if job.artifact.suffix not in runtime.suffixes:
                known = " and ".join(runtime.suffixes)
                fail(job, Reason("unsupported-artifact", f"{runtime.name} loads {known} files"))
        for number in range(max(protocol.launches, protocol.max_launches)):
            order = [job for job in jobs if job.name not in outcomes]
            if number >= protocol.launches:
                unsettled = [job for job in order if not settled(launches[job], protocol)]
                order = order if unsettled and paired else unsettled
                total += len(order)
            random.Random(protocol.input_seed + number).shuffle(order)
            if not order:
                break
            timed, failed = launcher.launch(order)
            for job, launch in timed.items():
                launches[job].append(launch)
            for job, reason in failed.items():
                fail(job, Reason(reason.code, f"launch {number + 1}: {reason.detail}"))
    for job in jobs:
        if job.name not in outcomes:
            verdict, reasons = judge(launches[job], protocol)
            measurement = Measurement(
                artifact_digest=digests[job],
                target=str(target),
                runtime=identity[0],
                device=identity[1],
                protocol=protocol,
                launches=tuple(launches[job]),
                verdict=verdict,
                reasons=reasons,
                started_at=started_at,
            )
            finish(job, measurement)
    return {job.name: outcomes[job.name] for job in jobs}
