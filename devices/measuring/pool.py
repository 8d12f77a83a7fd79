"""Measuring on a target whose device may be a pool: its members share the files out, each in its own name.

As members are equally fast, each takes an equal share at once: what a launch costs besides its files, such as
the canary, is then paid least often. One that drops out gives back what it has not finished.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from devices.connections import Connection
from devices.errors import LatheError, MeasurementError, TargetError
from devices.inventory.devices import members_of, no_member_left, runtime_of
from devices.measurement.measurement import (
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    Outcome,
    RuntimeIdentity,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring import batch, probing
from devices.measuring.agreement import Gathering, gather
from devices.measuring.busy import OtherLoad
from devices.measuring.busy import busy_with as busy_with_one
from devices.measuring.launch import Job
from devices.measuring.side_by_side import GoingOn, side_by_side
from devices.target import Target

MOST_LOSSES = 2
"""How many members may go away over a file before it is believed to be the cause."""
_LOST = "device-lost"
_LOOK_S = 1.0


def probe(target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
    """Identity of a target's runtime and device; of a pool those of the first member that measures.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported; or the
            members of a pool are unlike, or none can be used.
        MeasurementError: the agent gave no answer.
    """
    return probing.probe(target) if len(members_of(target.device)) == 1 else gather(target).identity


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
    job_timeout_s: float = batch.JOB_TIMEOUT_S,
    connection: Connection | None = None,
) -> dict[str, Outcome]:
    """Measure a batch of jobs on a device, as ``batch.measure`` does, or share it out over those of a pool.

    Each outcome of a pool is one of the member that measured it: its target names that device, its identity
    has that instance. Paired jobs stay together on one member. ``on_outcome`` gets what a member measured
    before it went away, and later what another measured in its place.

    Raises:
        TargetError: as of ``batch.measure``; of a pool only when no member is left.
        MeasurementError, ValueError: as of ``batch.measure``.
    """
    one = partial(
        batch.measure,
        protocol=protocol,
        paired=paired,
        require_full_delegation=require_full_delegation,
        on_state=on_state,
        job_timeout_s=job_timeout_s,
    )
    if connection is not None or len(members_of(target.device)) == 1:
        return one(jobs, target, on_progress=on_progress, on_outcome=on_outcome, connection=connection)
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError("the names of the jobs of a batch must differ")
    gathering = gather(target)
    size = len(jobs) if paired else -(-len(jobs) // max(1, len(gathering.members)))
    launches = runtime_of(target).adapt(protocol).launches
    sharing = _Sharing(
        gathering, jobs, size=size, launches=launches, on_progress=on_progress, on_outcome=on_outcome
    )
    return sharing.done_by(one)


def member_of(target: Target) -> Target:
    """The target on one device, for what has to be measured on the same machine throughout.

    Raises:
        TargetError: as of ``probe``.
    """
    return target if len(members_of(target.device)) == 1 else gather(target).members[0]


def busy_with(device: str, *, connection: Connection | None = None) -> OtherLoad:
    """What else a device does, see ``devices.measuring.busy``; of a pool, what its busiest member does.

    Raises:
        TargetError: no such device, or none of them can be reached.
        MeasurementError: the kernel of none tells.
    """
    members = members_of(device)
    if connection is not None or len(members) == 1:
        return busy_with_one(device, connection=connection)
    failures: list[LatheError] = []

    def look(name: str, going_on: GoingOn) -> OtherLoad | None:
        try:
            return busy_with_one(name)
        except LatheError as error:
            failures.append(error)
            return None

    # Only the devices of these targets count.
    looks = {Target(name, "onnxruntime"): partial(look, name) for name in members}
    loads = [load for load in side_by_side(looks).values() if load is not None]
    if not loads:
        raise failures[0]
    return max(loads, key=lambda load: load.busy_cores + load.stolen_cores)


@dataclass(frozen=True)
class _Piece:
    """Some jobs that a member takes at once, with a number that tells pieces apart."""

    number: int
    jobs: Sequence[Job]


class _Sharing:
    """Jobs that the members of a pool share. What it calls is called by one thread at a time."""

    def __init__(
        self,
        gathering: Gathering,
        jobs: Sequence[Job],
        *,
        size: int,
        launches: int,
        on_progress: Callable[[int, int], None] | None,
        on_outcome: Callable[[str, Outcome], None] | None,
    ) -> None:
        self._gathering, self._jobs, self._launches = gathering, jobs, launches
        self._on_progress, self._on_outcome = on_progress, on_outcome
        self._waiting = deque(
            _Piece(number, jobs[start : start + size])
            for number, start in enumerate(range(0, len(jobs), size))
        )
        self._counts = {piece.number: (0, len(piece.jobs) * launches) for piece in self._waiting}
        self._under_way = 0
        self._changed = threading.Condition()
        self._outcomes: dict[str, Outcome] = {}
        self._losses: Counter[str] = Counter()

    def done_by(self, measure_on: Callable[..., dict[str, Outcome]]) -> dict[str, Outcome]:
        """Let every member work until nothing is left.

        Raises:
            TargetError: no member is left, and some jobs were never begun.
        """
        members = list(self._gathering.members)
        if members:
            side_by_side({member: partial(self._serve, member, measure_on) for member in members})
        if any(job.name not in self._outcomes for job in self._jobs):
            reasons = [f"'{name}': {why}" for name, why in self._gathering.left_out.items()]
            raise no_member_left(self._gathering.target.device, reasons)
        return {job.name: self._outcomes[job.name] for job in self._jobs}

    def _serve(
        self, member: Target, measure_on: Callable[..., dict[str, Outcome]], going_on: GoingOn
    ) -> None:
        """Take pieces until there are none, or the member goes away."""
        while (piece := self._next(going_on)) is not None:
            found: dict[str, Outcome] = {}
            rest: list[Job] = []
            try:
                measure_on(
                    piece.jobs,
                    member,
                    on_progress=partial(self._progress, going_on, piece.number),
                    on_outcome=partial(self._keep, found),
                )
                if lost := [job for job in piece.jobs if _loss(found[job.name])]:
                    rest = self._to_give_back(lost)
                    self._gathering.leave_out(member, _loss(found[lost[0].name]))
                    return
            except (MeasurementError, TargetError) as error:
                rest = [job for job in piece.jobs if job.name not in found]
                self._gathering.leave_out(member, ": ".join(filter(None, (error.what, error.why))))
                return
            finally:
                self._finish(piece, rest)

    def _next(self, going_on: GoingOn) -> _Piece | None:
        """A piece; ``None`` when nothing is left, nor can be given back any more."""
        with self._changed:
            while not self._waiting and self._under_way:
                going_on()
                self._changed.wait(_LOOK_S)
            if not self._waiting:
                return None
            self._under_way += 1
            return self._waiting.popleft()

    def _finish(self, piece: _Piece, rest: Sequence[Job]) -> None:
        """A piece is done but for the rest, which others get."""
        with self._changed:
            self._under_way -= 1
            done = (len(piece.jobs) - len(rest)) * self._launches
            self._counts[piece.number] = (done, done)
            if rest:
                again = _Piece(len(self._counts), rest)
                self._counts[again.number] = (0, len(rest) * self._launches)
                self._waiting.append(again)
            self._changed.notify_all()

    def _to_give_back(self, lost: Sequence[Job]) -> list[Job]:
        """Those of the jobs over which a member went away that others are to try."""
        with self._changed:
            self._losses.update(job.name for job in lost)
            return [job for job in lost if self._losses[job.name] < MOST_LOSSES]

    def _keep(self, found: dict[str, Outcome], name: str, outcome: Outcome) -> None:
        """Take an outcome of a member; a failure by which it went away gives way to what others find."""
        with self._changed:
            found[name] = outcome
            known = self._outcomes.get(name)
            if isinstance(known, Measurement) and isinstance(outcome, MeasurementFailure):
                return
            self._outcomes[name] = outcome
            if self._on_outcome is not None:
                self._on_outcome(name, outcome)

    def _progress(self, going_on: GoingOn, number: int, done: int, total: int) -> None:
        going_on()
        with self._changed:
            self._counts[number] = (done, total)
            if self._on_progress is not None:
                counts = self._counts.values()
                self._on_progress(sum(done for done, _ in counts), sum(total for _, total in counts))


def _loss(outcome: Outcome) -> str:
    """How a member went away meanwhile; empty if it did not."""
    reasons = (outcome.reason,) if isinstance(outcome, MeasurementFailure) else outcome.reasons
    return next((f"it went away ({each.detail})" for each in reasons if each.code == _LOST), "")
