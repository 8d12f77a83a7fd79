"""Measures a batch of workloads on a target: several launches, failures kept apart from times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path

from devices.artifacts import artifact_digest, refuse_incomplete
from devices.connections import Connection
from devices.errors import MeasurementError
from devices.inventory.devices import connected, runtime_of
from devices.locking.lock import device_lock
from devices.measurement.measurement import Launch, Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.verdict import judge, mark, settled
from devices.measuring.launch import Job, Launcher, Tally
from devices.measuring.probing import adapted, identify, probe
from devices.runtimes import Runtime
from devices.target import Target
from devices.words import count_of, listed

__all__ = ["Job", "adapted", "measure", "probe"]

JOB_TIMEOUT_S = 120.0


def measure(
    jobs: Sequence[Job],
    target: Target,
    protocol: MeasuringProtocol,
    *,
    paired: bool = False,
    require_full_delegation: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_outcome: Callable[[str, Outcome], None] | None = None,
    on_state: Callable[[str], None] | None = None,
    job_timeout_s: float = JOB_TIMEOUT_S,
    connection: Connection | None = None,
) -> dict[str, Outcome]:
    """Measure a batch of jobs on a target, which is held alone meanwhile.

    Each of ``protocol.launches`` launches is one fresh process that loads and times every job, in an order
    shuffled by the launch's number, so that a disturbance meets all jobs alike. Jobs whose launches disagree
    or were disturbed get further launches, up to ``protocol.max_launches``; that never looks at the level of
    a latency, so it favours none. Where the protocol spreads launches over a time, the device is free between
    them. A job that fails or ends its process is tried once more, alone; when it
    fails again it becomes a MeasurementFailure and is left out of the remaining launches, and the other jobs
    go on; so does one whose file is missing, or of a kind that the runtime does not load. When the device
    goes away for good, what was measured until then is kept; launches that are spread over a time go on at
    the moment of the next. Times, conditions and peak memory are read on
    the device; peak memory counts the whole process, so in a batch it is an upper bound.

    Args:
        jobs: what to time.
        target: where.
        protocol: how often and how long.
        paired: every job gets as many launches as the one that needs most, so that launches can be compared
            one by one, and a launch that is void for one is void for all.
        require_full_delegation: a job of which any operation runs elsewhere than the target asks for fails.
        on_progress: called with the launches of jobs that are done, and their total.
        on_outcome: called with each job's name and outcome as soon as it is known.
        on_state: called with a line whenever a further launch is made, and why.
        job_timeout_s: how long one job may take in one launch, loading included.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Returns:
        One outcome per job, by name, in the order of ``jobs``.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported, the
            device cannot be reached, or is in use for too long.
        MeasurementError: no process on the device gets as far as a model, or the target gives no latencies.
        ValueError: two jobs have one name.
    """
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError("the names of the jobs of a batch must differ")
    runtime = runtime_of(target)
    if not (timing := runtime.capabilities(target).time):
        raise MeasurementError(f"'{target}' gives no latencies", why=timing.note)
    protocol = runtime.adapt(protocol)
    batch = _Batch(
        jobs,
        target,
        protocol,
        paired=paired,
        require_full_delegation=require_full_delegation,
        on_progress=on_progress,
        on_outcome=on_outcome,
        on_state=on_state,
    )
    batch.refuse_unfit(runtime)
    if not batch.open:
        return {job.name: batch.outcomes[job.name] for job in jobs}
    with (
        connected(target.device, connection) as device,
        device_lock(target.device, device, what=str(target)) as lock,
    ):
        batch.on_count = lambda done, total: lock.tell(done=done, total=total)
        identity = probe(target) if connection is None else identify(target, device)
        launcher = Launcher(device, target, runtime, protocol, job_timeout_s, lock.ensure, batch.count)
        cores = identity[1].cores
        began_s = time.monotonic()
        for number in range(max(protocol.launches, protocol.max_launches)):
            begins_s = _begins_s(number, protocol)
            if batch.lost is not None and not begins_s:
                break
            order = batch.due(number, cores)
            if not order:
                break
            if (pause_s := began_s + begins_s - time.monotonic()) > 0:
                lock.release()  # Others may measure meanwhile.
                time.sleep(pause_s)
            random.Random(protocol.input_seed + number).shuffle(order)
            tally = launcher.launch(order, reached=number > 0)
            batch.add(number, tally)
            if last := list(tally.timed.values())[-1:]:
                lock.tell_conditions(last[0].after)
    for job, launches in batch.marked(batch.open, cores).items():
        if not launches:
            batch.fail(job, batch.lost or Reason("not-measured", "the protocol asks for no launch"))
            continue
        verdict, reasons = judge(launches, protocol)
        if batch.lost is not None:
            verdict = max(verdict, Verdict.DEGRADED, key=list(Verdict).index)
            reasons = (*reasons, batch.lost)
        measurement = Measurement(
            artifact_digest=batch.digests[job],
            target=str(target),
            runtime=identity[0],
            device=identity[1],
            protocol=protocol,
            launches=launches,
            verdict=verdict,
            reasons=reasons,
            started_at=batch.started_at,
        )
        batch.finish(job, measurement)
    return {job.name: batch.outcomes[job.name] for job in jobs}


class _Batch:
    """What is known of the jobs of a batch so far."""

    def __init__(
        self,
        jobs: Sequence[Job],
        target: Target,
        protocol: MeasuringProtocol,
        *,
        paired: bool,
        require_full_delegation: bool,
        on_progress: Callable[[int, int], None] | None,
        on_outcome: Callable[[str, Outcome], None] | None,
        on_state: Callable[[str], None] | None,
    ) -> None:
        self._jobs, self._target, self._protocol = jobs, target, protocol
        self._paired, self._require_full_delegation = paired, require_full_delegation
        self._on_progress, self._on_outcome, self._on_state = on_progress, on_outcome, on_state
        self._launches: dict[Job, list[Launch]] = {job: [] for job in jobs}
        self._done, self._total = 0, len(jobs) * protocol.launches
        self.digests = {job: _digest(job.artifact) for job in jobs}
        self.outcomes: dict[str, Outcome] = {}
        self.lost: Reason | None = None
        self.on_count: Callable[[int, int], None] = lambda done, total: None
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def open(self) -> list[Job]:
        """The jobs without an outcome."""
        return [job for job in self._jobs if job.name not in self.outcomes]

    def refuse_unfit(self, runtime: Runtime) -> None:
        """Fail the jobs whose files are not there, or are none that the runtime loads."""
        for job in self.open:
            if not job.artifact.is_file():
                what = "it is a folder" if job.artifact.is_dir() else "there is no such file"
                self.fail(job, Reason("no-file", f"{str(job.artifact)!r}: {what}"))
            elif not runtime.loads(job.artifact):
                detail = f"{runtime.name} loads {listed(runtime.suffixes)} files"
                self.fail(job, Reason("unsupported-artifact", detail))
            elif missing := _incomplete(job.artifact):
                self.fail(job, Reason("no-weights", missing))
            elif job.given.signature and job.artifact.suffix.lower() != ".tflite":
                self.fail(
                    job, Reason("bad-input", "only .tflite files have signatures; leave --signature out")
                )
            elif job.given and not (inputs := runtime.capabilities(self._target).inputs):
                self.fail(job, Reason("not-supported", f"inputs cannot be given: {inputs.note}"))

    def due(self, number: int, cores: int) -> list[Job]:
        """The jobs of a launch: all at first, then those that are not settled."""
        if number < self._protocol.launches:
            return self.open
        marked = self.marked(self.open, cores)
        unsettled = [job for job in marked if not settled(marked[job], self._protocol)]
        order = list(marked) if unsettled and self._paired else unsettled
        if order:
            self._total += len(order)
            self.count(0)
            if self._on_state is not None:
                self._on_state(_why_again(number, [marked[job] for job in unsettled]))
        return order

    def add(self, number: int, tally: Tally) -> None:
        """Take in what a launch gave."""
        for job, launch in tally.timed.items():
            self._launches[job].append(launch)
        for job, reason in tally.failed.items():
            self.fail(job, Reason(reason.code, f"launch {number + 1}: {reason.detail}"))
        for job, launch in tally.timed.items() if self._require_full_delegation else ():
            if job.name not in self.outcomes and not (launch.placement and launch.placement.full):
                self.fail(job, Reason("fallback", str(launch.placement or "the runtime does not tell")))
        self.lost = tally.lost or self.lost

    def marked(self, jobs: Sequence[Job], cores: int) -> Mapping[Job, tuple[Launch, ...]]:
        """The launches of some jobs with the disturbed ones void; if paired, void for one is void for all."""
        marked = {job: mark(self._launches[job], self._protocol, cores=cores) for job in jobs}
        if not self._paired:
            return marked
        voids = [
            next((launch.void for launch in together if launch is not None and launch.void is not None), None)
            for together in zip_longest(*marked.values())
        ]
        return {
            job: tuple(replace(launch, void=void) for launch, void in zip(launches, voids, strict=False))
            for job, launches in marked.items()
        }

    def count(self, launches_done: int = 1) -> None:
        """Tell of progress."""
        self._done += launches_done
        self.on_count(self._done, self._total)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    def fail(self, job: Job, reason: Reason) -> None:
        """The job has failed for good."""
        if job.given.shapes:
            reason = replace(reason, detail=f"with {job.given.shapes}: {reason.detail}")
        self.finish(job, MeasurementFailure(self.digests[job], str(self._target), reason))
        self.count(max(0, self._protocol.launches - len(self._launches[job])))

    def finish(self, job: Job, outcome: Outcome) -> None:
        """The job has its outcome."""
        self.outcomes[job.name] = outcome
        if self._on_outcome is not None:
            self._on_outcome(job.name, outcome)


def _begins_s(number: int, protocol: MeasuringProtocol) -> float:
    """When a launch may begin, in seconds after the first; 0 where it follows at once."""
    if not 0 < number < protocol.launches:
        return 0.0
    moment = number + random.Random(protocol.input_seed + number).random()
    return moment * protocol.spread_ns / 1e9 / protocol.launches


def _digest(artifact: Path) -> str:
    """That of a model, or an empty text where it is not there as a whole."""
    return "" if not artifact.is_file() or _incomplete(artifact) else artifact_digest(artifact)


def _incomplete(artifact: Path) -> str:
    """What is missing of a model, if anything is."""
    try:
        refuse_incomplete(artifact)
    except MeasurementError as error:
        return f"{error.what}: {error.why}; {error.fix}"
    return ""


def _why_again(number: int, unsettled: Sequence[Sequence[Launch]]) -> str:
    """Why so many launches were not enough for some jobs."""
    disturbed = max(sum(launch.void is not None for launch in launches) for launches in unsettled)
    why = f", {disturbed} disturbed" if disturbed else " that disagree"
    return f"{count_of(number, 'launch')}{why}, measuring again"
