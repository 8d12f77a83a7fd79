"""One launch of a batch: fresh processes until every job has been timed once, or has failed twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devices.connections import Connection
from devices.errors import MeasurementError, TargetError
from devices.inputs import NOTHING, Given
from devices.inventory.devices import call_to
from devices.measurement.conditions import RunQueue, Usage, conditions_from_json
from devices.measurement.inputs import InputUse
from devices.measurement.measurement import Launch, Placed, Placement, Reason, Summary
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.runtimes.answers import MALFORMED, malformed
from devices.runtimes.base import Event, Measure, Reply, Runtime
from devices.target import Target
from devices.words import listed

MAX_FRUITLESS = 3
"""Processes in a row that may end before any job was begun."""
LOST_PAUSES_S = (1.0, 5.0, 20.0)
"""How long to wait for a device that went away, before each further attempt to reach it."""


_TOO_FAST = (
    "an inference takes less than the tool's clock can tell, so that its time is given as 0; measure a larger"
    " model, or this one by a runtime that counts in nanoseconds"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A file to be timed, with the inputs that it is given; the name is unique within its batch."""

    name: str
    artifact: Path
    given: Given = NOTHING


@dataclass
class Tally:
    """What became of some jobs: timed, failed with a reason, or never begun because their process ended.

    ``lost`` says why the device went away, if it did; then jobs may be in none of the three.
    """

    timed: dict[Job, Launch] = field(default_factory=dict)
    failed: dict[Job, Reason] = field(default_factory=dict)
    untouched: dict[Job, Reason] = field(default_factory=dict)
    lost: Reason | None = None


@dataclass(frozen=True)
class Launcher:
    """Everything that the launches of a batch have in common.

    Attributes:
        job_timeout_s: how long one job may take in one launch, loading included.
        ensure_lock: called before each process: a lock is lost with the connection that holds it.
        on_timed: called when a job has been timed once more.
    """

    connection: Connection
    target: Target
    runtime: Runtime
    protocol: MeasuringProtocol
    job_timeout_s: float
    ensure_lock: Callable[[], None]
    on_timed: Callable[[], None]

    def launch(self, order: Sequence[Job], *, reached: bool = False) -> Tally:
        """Time every job once; the launches of those that ran, and why the others failed.

        A job that fails, or during which the process ends, is suspected: the jobs behind it go on in a new
        process, and it is tried once more at the end, alone. What was under way when the device went away is
        repeated when it comes back; if it does not, the tally says so, and holds what was timed until then.

        Args:
            order: the jobs.
            reached: an earlier launch ran there, so that a device which cannot be had now, or runs no more
                processes, went away.

        Raises:
            TargetError: the runtime is not installed, or the device cannot be reached at all.
            MeasurementError: ``MAX_FRUITLESS`` processes in a row end before they begin any job.
        """
        done = Tally()
        suspects: list[Job] = []
        waiting, fruitless, was_there = list(order), 0, reached
        while waiting and done.lost is None:
            tally = self._run(waiting, was_there)
            was_there = True
            done.timed |= tally.timed
            done.lost = tally.lost
            suspects += tally.failed
            fruitless = fruitless + 1 if len(tally.untouched) == len(waiting) else 0
            if fruitless == MAX_FRUITLESS:
                cause = tally.untouched[waiting[0]]
                if reached:
                    done.lost = cause
                    break
                raise MeasurementError(
                    f"processes on '{self.target}' end before they load a model ({cause.code})",
                    why=cause.detail,
                )
            waiting = list(tally.untouched)
        for job in suspects:
            if done.lost is None:
                tally = self._run([job], was_there=True)
                done.timed |= tally.timed
                done.failed |= tally.failed | tally.untouched
                done.lost = tally.lost
        return done

    def _run(self, order: Sequence[Job], was_there: bool) -> Tally:
        """One process over some jobs, in that order; further ones for the rest where the device goes away."""
        done = self._attempt_again(order) if was_there else self._attempt(order)
        for pause_s in LOST_PAUSES_S:
            if done.lost is None:
                break
            _log.warning("'%s' went away (%s); trying again in %g s", self.target, done.lost.detail, pause_s)
            time.sleep(pause_s)
            rest = [job for job in order if job not in done.timed and job not in done.failed]
            tally = self._attempt_again(rest)
            done = Tally(done.timed | tally.timed, done.failed | tally.failed, tally.untouched, tally.lost)
        return done

    def _attempt_again(self, order: Sequence[Job]) -> Tally:
        """An attempt on a device that was there before."""
        try:
            return self._attempt(order)
        except TargetError as error:
            return Tally(lost=device_lost(error))

    def _attempt(self, order: Sequence[Job]) -> Tally:
        self.ensure_lock()
        reply = self.runtime.exchange(
            call_to(
                self.target,
                self.connection,
                timeout_s=self.job_timeout_s * (len(order) + 1),
                silence_s=self.job_timeout_s,
                on_event=lambda event: self.on_timed() if event["event"] == "result" else None,
            ),
            Measure(tuple(job.artifact for job in order), self.protocol, tuple(job.given for job in order)),
        )
        return self._tally(order, reply)

    def _tally(self, order: Sequence[Job], reply: Reply) -> Tally:
        tally = Tally()
        level = self.protocol.headline_quantile
        canaries = [round(quantile(event["samples_ns"], level)) for event in reply.all("canary")]
        canary_ns = tuple(canary for canary in canaries if canary > 0)
        begun: list[Job] = []
        process_start_ns: int | None = None
        ended = Reason(*reply.end)
        for event in reply.events:
            job = begun[-1] if begun else None
            done = job is None or job in tally.timed or job in tally.failed
            if event["event"] == "ready":
                process_start_ns = event["process_start_ns"]
            elif event["event"] == "started":
                if event["job"] >= len(order) or order[event["job"]] in begun:
                    ended = _unexpected(event, "no such job can begin")
                    break
                begun.append(order[event["job"]])
            elif event["event"] in ("result", "failed"):
                if job is None or done or event.get("job") != order.index(job):
                    ended = _unexpected(event, "this job was not begun, or has ended")
                    break
                self._take(tally, job, event, process_start_ns, canary_ns)
        if begun and begun[-1] in tally.timed and ended.code.startswith("crashed-signal-"):
            # What a process says that then crashes is not to be believed.
            del tally.timed[begun[-1]]
        if reply.ended.lost:
            tally.lost = ended
            return tally
        for job in order:
            if job not in begun:
                tally.untouched[job] = ended
            elif job not in tally.timed and job not in tally.failed:
                tally.failed[job] = ended
        return tally

    def _take(
        self,
        tally: Tally,
        job: Job,
        event: Event,
        process_start_ns: int | None,
        canary_ns: tuple[int, ...],
    ) -> None:
        """What became of a job."""
        if event["event"] == "failed":
            tally.failed[job] = reason_of_failure(event)
            return
        launch = _launch_from_json(event, process_start_ns, canary_ns)
        try:
            sound = launch.quantile_ns(self.protocol.headline_quantile) > 0
        except ValueError as error:
            tally.failed[job] = _unexpected(event, str(error))
            return
        if sound:
            tally.timed[job] = launch
        else:
            tally.failed[job] = Reason("too-fast", _TOO_FAST)


def device_lost(error: TargetError) -> Reason:
    """Why a device that was there before cannot be had."""
    return Reason("device-lost", f"{error.what}: {error.why}" if error.why else error.what)


def reason_of_failure(event: Event) -> Reason:
    """Why a job failed; where sizes had been assumed, with the way to give them."""
    inputs = [InputUse(**each) for each in event.get("inputs", ())]
    assumed = [each for each in inputs if each.assumed]
    if not assumed or event["code"] == "bad-input":
        return Reason(event["code"], event["detail"])
    given = " ".join(each.option for each in assumed)
    taken = listed(each.assumption for each in assumed)
    return Reason(
        "needs-shape", f"{taken}, with which it does not run; give its size: {given} ({event['detail']})"
    )


def _unexpected(event: Event, why: str) -> Reason:
    return Reason(MALFORMED, malformed(repr(dict(event)), why)["detail"])


def _launch_from_json(result: Event, process_start_ns: int | None, canary_ns: tuple[int, ...]) -> Launch:
    usage, queue, placement, summary = (
        result.get(name) for name in ("usage", "queue", "placement", "summary")
    )
    return Launch(
        process_start_ns=result.get("process_start_ns", process_start_ns),
        load_ns=result["load_ns"],
        first_inference_ns=result["first_inference_ns"],
        samples_ns=tuple(result["samples_ns"]),
        peak_memory_bytes=result["peak_memory_bytes"],
        before=conditions_from_json(result["before"]),
        after=conditions_from_json(result["after"]),
        usage=None if usage is None else Usage(**usage),
        queue=None if queue is None else RunQueue(**queue),
        canary_ns=canary_ns,
        placement=None
        if placement is None
        else Placement(placement["delegate"], tuple(Placed(**part) for part in placement["parts"])),
        to_device_ns=tuple(result.get("to_device_ns", ())),
        from_device_ns=tuple(result.get("from_device_ns", ())),
        summary=None if summary is None else _summary_from_json(summary),
        warnings=tuple(Reason(**warning) for warning in result.get("warnings", ())),
        inputs=tuple(InputUse(**each) for each in result.get("inputs", ())),
    )


def _summary_from_json(summary: Event) -> Summary:
    quantiles = tuple((float(level), int(value)) for level, value in summary["quantiles_ns"])
    return Summary(summary["count"], summary["mean_ns"], summary["min_ns"], summary["max_ns"], quantiles)
