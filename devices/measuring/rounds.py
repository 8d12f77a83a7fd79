"""Files of one device measured round by round, whatever runtimes they take, and compared round by round.

In a round every file that is still of interest gets one launch; files of one target share a process, and the
targets' processes follow one another in random order. Between rounds files may join or leave. So the files
of different runtimes are compared under the same conditions, and no time goes into those that are surely
slow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devices.artifacts import artifact_digest
from devices.connections import Connection
from devices.errors import PassingTargetError, TargetError
from devices.inventory.devices import runtime_of
from devices.locking.lock import device_lock
from devices.measurement.headline import launch_interval
from devices.measurement.measurement import (
    MIN_LAUNCHES,
    WIDE,
    Launch,
    Measurement,
    MeasurementFailure,
    Outcome,
    Ratio,
    Reason,
    Verdict,
    latency_of,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import student_t_quantile
from devices.measurement.verdict import judge, mark
from devices.measuring.batch import JOB_TIMEOUT_S
from devices.measuring.launch import Job, Launcher, device_lost
from devices.measuring.probing import probe
from devices.target import Target

USUAL_SPREAD = 0.05
"""How much the ratio of two files differs from round to round, as far as is known before it was seen."""
_USUAL_ROUNDS = 4
"""How many rounds that knowledge is worth."""
ONE_ROUND_SPREAD = 0.1
"""Likewise where only one round was seen, so that nothing tells whether something disturbed it."""
_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Entrant:
    """A file on a target; the name is unique."""

    name: str
    artifact: Path
    target: Target


@dataclass(frozen=True)
class Round:
    """One launch of each file by its name, or the reason why it did not run.

    Attributes:
        lost: why the device went away, if it did.
        adapted: the protocols of files whose runtimes cannot follow the one that was given.
    """

    launches: Mapping[str, Launch]
    failed: Mapping[str, Reason] = field(default_factory=dict)
    lost: Reason | None = None
    adapted: Mapping[str, MeasuringProtocol] = field(default_factory=dict)


def measure_round(
    entrants: Sequence[Entrant],
    protocol: MeasuringProtocol,
    number: int,
    connection: Connection,
    *,
    on_timed: Callable[[], None] = lambda: None,
    job_timeout_s: float = JOB_TIMEOUT_S,
) -> Round:
    """Give every file one launch, the device held alone meanwhile.

    Args:
        entrants: of one device, at least one.
        protocol: how long; its numbers of launches do not count here.
        number: of the round, which decides the order.
        connection: to the device; it stays open.
        on_timed: called whenever a file was timed.
        job_timeout_s: how long one file may take, loading included.

    A target that cannot be had, such as one of cores that are not offered, stops no other. A device that goes
    away ends the round.

    Raises:
        TargetError: the device cannot be reached, or is in use for too long, or no target can be had.
        MeasurementError: no process on the device gets as far as a model.
    """
    launches: dict[str, Launch] = {}
    failed: dict[str, Reason] = {}
    protocols: dict[str, MeasuringProtocol] = {}
    refused: dict[Target, TargetError] = {}
    targets: dict[Target, list[Entrant]] = {}
    for entrant in entrants:
        targets.setdefault(entrant.target, []).append(entrant)
    order = list(targets)
    shuffling = random.Random(protocol.input_seed + number)
    shuffling.shuffle(order)
    device = entrants[0].target.device
    with device_lock(device, connection, what=f"a round of {len(entrants)} files") as lock:
        for target in order:
            runtime = runtime_of(target)
            adapted = runtime.adapt(protocol)
            launcher = Launcher(connection, target, runtime, adapted, job_timeout_s, lock.ensure, on_timed)
            jobs = [Job(each.name, each.artifact) for each in targets[target]]
            shuffling.shuffle(jobs)
            if adapted != protocol:
                protocols |= {job.name: adapted for job in jobs}
            try:
                tally = launcher.launch(jobs)
            except PassingTargetError as error:
                return Round(launches, failed, device_lost(error), protocols)
            except TargetError as error:
                refused[target] = error
                reason = Reason("bad-target", f"{error.what}: {error.why}")
                failed |= {job.name: reason for job in jobs}
                continue
            launches |= {job.name: launch for job, launch in tally.timed.items()}
            failed |= {job.name: reason for job, reason in tally.failed.items()}
            if tally.lost is not None:
                return Round(launches, failed, tally.lost, protocols)
    if len(refused) == len(order):
        raise refused[order[0]]
    return Round(launches, failed, adapted=protocols)


@dataclass(frozen=True)
class Rounds:
    """What some rounds say of the files.

    Attributes:
        rounds: in order.
        protocol: by which files were measured whose round does not name another.
        cores: of the device.
    """

    rounds: tuple[Round, ...]
    protocol: MeasuringProtocol
    cores: int

    def count(self, name: str) -> int:
        """Rounds in which a file ran."""
        return sum(name in each.launches for each in self.rounds)

    def failure(self, name: str) -> Reason | None:
        """Why a file did not run, if it did not."""
        return next((each.failed[name] for each in self.rounds if name in each.failed), None)

    def sharp(self, name: str) -> bool:
        """Whether the latency of a file is known well enough so far, as ``Measurement.sharp``."""
        launches, protocol = tuple(self._by_round(name).values()), self._protocol(name)
        verdict, _ = judge(launches, protocol)
        wide = latency_of(launches, protocol).relative_width > WIDE
        return verdict is Verdict.VALID or (verdict is Verdict.DEGRADED and not wide)

    def outcome(self, entrant: Entrant, started_at: str) -> Outcome:
        """The measurement of a file, or its failure.

        Args:
            entrant: the file.
            started_at: when the rounds began.
        """
        digest, target = artifact_digest(entrant.artifact), str(entrant.target)
        reason = self.failure(entrant.name)
        launches = tuple(self._by_round(entrant.name).values())
        if reason is not None or not launches:
            lost = next((each.lost for each in self.rounds if each.lost is not None), None)
            missing = lost or Reason("not-measured", "no round was measured")
            return MeasurementFailure(digest, target, reason or missing)
        runtime, device = probe(entrant.target)
        protocol = self._protocol(entrant.name)
        verdict, reasons = judge(launches, protocol)
        return Measurement(digest, target, runtime, device, protocol, launches, verdict, reasons, started_at)

    def ratio(self, one: str, other: str) -> Ratio | None:
        """Latency of one file over that of another, round by round; ``None`` where none has both.

        The interval is free of any distribution, as that of a paired measurement.
        """
        ratios = self._ratios(one, other)
        if not ratios:
            return None
        interval = launch_interval(ratios)
        return Ratio(interval.low_ns, interval.value_ns, interval.high_ns, interval.confidence)

    def at_least(self, one: str, other: str) -> float:
        """The ratio that one's latency over the other's surely exceeds, known after one round already.

        The lower end of a one-sided interval of 99 % for the mean logarithm of the ratio, by a moderated t
        statistic: the variance seen is shrunk to the usual one, so that two rounds that agree by chance
        decide nothing (Smyth 2004, "Linear models and empirical Bayes methods", section 3). One round tells
        only what is far apart, by ``ONE_ROUND_SPREAD``, and nothing if it was disturbed. 0 where no round has
        both.
        """
        logarithms = [math.log(ratio) for ratio in self._ratios(one, other)]
        count = len(logarithms)
        if not count or (count == 1 and any(each.void is not None for each in self._pairs(one, other)[0])):
            return 0.0
        if count == 1:
            return math.exp(logarithms[0] - student_t_quantile(_USUAL_ROUNDS, _CONFIDENCE) * ONE_ROUND_SPREAD)
        mean = sum(logarithms) / count
        squares = sum((each - mean) ** 2 for each in logarithms)
        freedom = _USUAL_ROUNDS + count - 1
        variance = (_USUAL_ROUNDS * USUAL_SPREAD**2 + squares) / freedom
        return math.exp(mean - student_t_quantile(freedom, _CONFIDENCE) * math.sqrt(variance / count))

    def _ratios(self, one: str, other: str) -> list[float]:
        """At one quantile: that of a file whose tool tells no other, as of samples any is known."""
        own = self.protocol.headline_quantile
        levels = [self._protocol(name).headline_quantile for name in (one, other)]
        level = next((each for each in levels if each != own), own)
        return [a.quantile_ns(level) / b.quantile_ns(level) for a, b in self._pairs(one, other)]

    def _protocol(self, name: str) -> MeasuringProtocol:
        return next((each.adapted[name] for each in self.rounds if name in each.adapted), self.protocol)

    def _pairs(self, one: str, other: str) -> list[tuple[Launch, Launch]]:
        """Launches of the rounds in which neither was disturbed, or of all where hardly any would be left."""
        mine, theirs = self._by_round(one), self._by_round(other)
        common = [(mine[number], theirs[number]) for number in mine.keys() & theirs.keys()]
        sound = [(a, b) for a, b in common if a.void is None and b.void is None]
        return sound if len(sound) >= MIN_LAUNCHES else common

    def _by_round(self, name: str) -> Mapping[int, Launch]:
        """A file's launches by number of the round, with the disturbed ones void."""
        found = {
            number: each.launches[name] for number, each in enumerate(self.rounds) if name in each.launches
        }
        marked = mark(tuple(found.values()), self._protocol(name), cores=self.cores)
        return dict(zip(found, marked, strict=True))
