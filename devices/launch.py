"""One launch of a batch: fresh processes until every job has been timed once, or has failed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devices.conditions import conditions_from_json
from devices.connections import Connection
from devices.errors import MeasurementError
from devices.exchange import Event, describe_end, exchange
from devices.measurement import Launch, MeasuringProtocol, Reason
from devices.runtimes import Runtime
from devices.target import Target

MAX_FRUITLESS = 3
"""Processes in a row that may end before any job was begun."""


@dataclass(frozen=True)
class Job:
    """A file to be timed; the name is unique within its batch."""

    name: str
    artifact: Path


@dataclass
class Tally:
    """What became of some jobs: timed, failed with a reason, or never begun because their process ended."""

    timed: dict[Job, Launch] = field(default_factory=dict)
    failed: dict[Job, Reason] = field(default_factory=dict)
    untouched: dict[Job, Reason] = field(default_factory=dict)


@dataclass(frozen=True)
class Launcher:
    """Everything that the launches of a batch have in common.

    Attributes:
        job_timeout_s: how long one job may take in one launch, loading included.
        on_timed: called when a job has been timed once more.
    """

    connection: Connection
    target: Target
    runtime: Runtime
    protocol: MeasuringProtocol
    job_timeout_s: float
    on_timed: Callable[[], None]

    def launch(self, order: Sequence[Job]) -> tuple[dict[Job, Launch], dict[Job, Reason]]:
        """Time every job once; the launches of those that ran, and why the others failed.

        A job that fails, or during which the process ends, is suspected: the jobs behind it go on in a new
        process, and it is tried once more at the end, alone.

        Raises:
            MeasurementError: ``MAX_FRUITLESS`` processes in a row end before they begin any job.
        """
        timed: dict[Job, Launch] = {}
        suspects: list[Job] = []
        waiting, fruitless = list(order), 0
        while waiting:
            tally = self._run(waiting)
            timed |= tally.timed
            suspects += tally.failed
            fruitless = fruitless + 1 if len(tally.untouched) == len(waiting) else 0
            if fruitless == MAX_FRUITLESS:
                cause = tally.untouched[waiting[0]]
                raise MeasurementError(
                    f"processes on '{self.target}' end before they load a model ({cause.code})",
                    why=cause.detail,
                )
            waiting = list(tally.untouched)
        failed: dict[Job, Reason] = {}
        for job in suspects:
            tally = self._run([job])
            timed |= tally.timed
            failed |= tally.failed | tally.untouched
        return timed, failed

    def _run(self, order: Sequence[Job]) -> Tally:
        """One process over some jobs, in that order."""
        reply = exchange(
            self.connection,
            self.runtime,
            self.target,
            {
                "command": "measure",
                "artifacts": [self.connection.push(job.artifact) for job in order],
                "protocol": asdict(self.protocol),
            },
            timeout_s=self.job_timeout_s * (len(order) + 1),
            silence_s=self.job_timeout_s,
            on_event=lambda event: self.on_timed() if event["event"] == "result" else None,
        )
        tally = Tally()
        begun: set[Job] = set()
        process_start_ns = 0
        for event in reply.events:
            if event["event"] == "ready":
                process_start_ns = event["process_start_ns"]
                continue
            job = order[event["job"]]
            begun.add(job)
            if event["event"] == "result":
                tally.timed[job] = _launch_from_json(event, process_start_ns)
            elif event["event"] == "failed":
                tally.failed[job] = Reason(event["code"], event["detail"])
        ended = Reason(*describe_end(reply.ended))
        for job in order:
            if job not in begun:
                tally.untouched[job] = ended
            elif job not in tally.timed and job not in tally.failed:
                tally.failed[job] = ended
        return tally


def _launch_from_json(result: Event, process_start_ns: int) -> Launch:
    return Launch(
        process_start_ns=process_start_ns,
        load_ns=result["load_ns"],
        first_inference_ns=result["first_inference_ns"],
        samples_ns=tuple(result["samples_ns"]),
        peak_memory_bytes=result["peak_memory_bytes"],
        before=conditions_from_json(result["before"]),
        after=conditions_from_json(result["after"]),
    )
