"""Stage ``race``: variants measured in rounds; those that are surely slower or lose too much are stopped.

In a round each variant that is still of interest has one launch, all runtimes under the same conditions. The
fastest is asked for its accuracy; if that drops too far, it is out, and variants that may stand in its place
are tried. The fastest that passes is the leader, and whoever is surely slower than it by ``MARGIN`` gets no
further launches. The leader, the baseline and what cannot be told from the leader run in all rounds. Variants
that are dear to make, and those that compute as others do, join after the first round, where these others
come near the leader.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from devices.errors import LatheError, MeasurementError, TargetError
from devices.inventory import connected, is_this_machine, runtime_of
from devices.measurement import PASSING_CODES
from devices.measuring import LAUNCHES, Entrant, Round, Rounds, measure_round, probe
from devices.target import Target
from devices.words import count_of
from pipeline.compile.result import Fate, Objective, Raced
from pipeline.compile.rows import Finished
from pipeline.compile.runners import RaceInput, Runner, Runners
from pipeline.compile.services import CompileServices
from pipeline.progress import Reporter
from pipeline.work.disk import write_atomically
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder, stage

MARGIN = 1.03
"""A variant that is surely slower than the leader by more is stopped."""
NEAR = 2.0
"""A variant that waits is made if one that is like it takes at most this many times the leader's latency."""
MAX_ROUNDS = 2 * LAUNCHES
_JOURNAL = "rounds.jsonl"


@functools.cache
def _rounds() -> TypeAdapter[Round]:
    return TypeAdapter(Round)


def _is_final(raced: Raced) -> bool:
    return not any(row.passing for row in raced.rows)


@stage("race", final=_is_final)
def race(given: RaceInput, folder: StageFolder, services: CompileServices) -> Raced:
    """Make, compare and measure variants; after a kill it goes on from its last round.

    A variant that could not be made or run for a reason that may pass is tried again by the next call.

    Raises:
        TargetError: the device cannot be reached, or went away.
        MeasurementError: the model itself does not run there.
        ExportError: the model itself cannot be made for any runtime, or gives inf or NaN.
    """
    return _Race(given, folder, services).run()


@dataclass(frozen=True)
class Candidate:
    """A variant that can be measured, and whether it keeps the accuracy."""

    entrant: Entrant
    keeps: bool


def everything(given: RaceInput, work: WorkFolder, reporter: Reporter) -> dict[str, Candidate]:
    """Every variant made and compared with the model, also those that a race would not try.

    Args:
        given: as of a race.
        work: an opened folder.
        reporter: where to tell of progress.

    Returns:
        By name, those that can be made.
    """
    runners = Runners(given, StageFolder(work.stages / "everything"), CompileServices(reporter, work))
    runners.enter_all()
    return {
        name: Candidate(runners.entrant(runner), runners.keeps(runner))
        for name, runner in runners.all.items()
        if runner.made.file is not None
    }


class _Race:
    def __init__(self, given: RaceInput, folder: StageFolder, services: CompileServices) -> None:
        self._given, self._folder, self._services = given, folder, services
        self._runners = Runners(given, folder, services)
        self._rounds: list[Round] = []
        self._cores = 1
        self._threads_tried = False

    def run(self) -> Raced:
        given, runners = self._given, self._runners
        between = self._services.history()
        runners.start()
        self._cores = self._cores_of(runners[runners.baseline].target)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        past = self._past()
        with (
            connected(given.place.device) as connection,
            self._services.reporter.task(f"measuring on {given.place}", "launches") as task,
        ):
            done = 0

            def timed() -> None:
                nonlocal done
                done += 1
                task(done, done + len(due) * max(0, LAUNCHES - len(self._rounds)))

            while due := self._due():
                number = len(self._rounds)
                if number < len(past) and set(past[number].launches) | set(past[number].failed) == set(due):
                    found = past[number]
                else:
                    past = past[:number]
                    entrants = [runners.entrant(runners[name]) for name in due]
                    found = measure_round(entrants, given.protocol, number, connection, on_timed=timed)
                    # One that ends the race is measured again by the next call.
                    if found.lost is None and runners.baseline not in found.failed:
                        self._note(found)
                self._take(found)
                leader = self._judge()
                if number == 0:
                    self._enter_waiting(leader)
                if leader and not self._due() and not self._threads_tried:
                    self._threads_tried = True
                    self._try_threads(leader)
            self._measure_memory(connection)
        for name in runners.alive:
            runners.keeps(runners[name])
        return Finished(given, runners, self._table, started_at, self._folder).raced(between)

    def _cores_of(self, target: Target) -> int:
        return probe(target)[1].cores

    def _cores_offered(self) -> Sequence[int]:
        """Numbers of the cores that may be used: on this machine those that this process may run on."""
        if is_this_machine(self._given.place.device):
            return sorted(os.sched_getaffinity(0))
        return range(self._cores)

    @property
    def _table(self) -> Rounds:
        return Rounds(tuple(self._rounds), self._given.protocol, self._cores)

    def _due(self) -> list[str]:
        """Who runs in the next round: all that have not had enough, and the baseline beside them."""
        if len(self._rounds) >= MAX_ROUNDS:
            return []
        table, alive = self._table, self._runners.alive
        always = {self._runners.baseline, *(self._ordered()[:1] if self._rounds else [])}
        doubtful = [name for name in always if table.count(name) and not table.sharp(name)]
        waiting = doubtful + [name for name in alive if table.count(name) < LAUNCHES]
        if not waiting:
            return []
        kept = {*waiting, *always}
        return [name for name in self._runners.all if name in kept]

    def _ordered(self) -> list[str]:
        """Those that run, the best by what is wanted first."""
        table, runners = self._table, self._runners
        if self._given.rules.objective is Objective.SIZE:
            return sorted(runners.alive, key=lambda name: runners[name].made.size_bytes)
        ratios = {name: table.ratio(name, runners.baseline) for name in runners.alive}
        return sorted(
            (name for name in ratios if ratios[name] is not None),
            key=lambda name: ratios[name].value,  # type: ignore[union-attr]
        )

    def _take(self, found: Round) -> None:
        self._rounds.append(found)
        for name, reason in found.failed.items():
            if name == self._runners.baseline:
                raise MeasurementError(
                    f"{self._given.model.name} itself does not run on {self._runners[name].target}",
                    why=f"{reason.code}: {reason.detail}",
                    fix="choose another runtime, or export the model with operators that this one has",
                )
            passing = reason.code in PASSING_CODES
            self._runners[name].end(Fate.FAILED, f"{reason.code}: {reason.detail}", passing=passing)
        if found.lost is not None:
            raise TargetError(
                f"'{self._given.place.device}' went away while variants were measured",
                why=found.lost.detail,
                fix="run the same command again when it is back; it goes on from the last round",
            )

    def _judge(self) -> str | None:
        """Find the leader, and stop whoever is surely worse."""
        table, runners = self._table, self._runners
        ordered = self._ordered()
        leader = next((name for name in ordered if self._passes(runners[name])), None)
        if leader is None:
            return None
        for name in runners.alive:
            if name in (leader, runners.baseline):
                continue
            if self._given.rules.objective is Objective.SIZE:
                more = runners[name].made.size_bytes / runners[leader].made.size_bytes
                if more > MARGIN:
                    runners[name].end(Fate.STOPPED, f"at {more:.2f}x the size of {leader}")
            elif (surely := table.at_least(name, leader)) > MARGIN:
                ratio = table.ratio(name, leader)
                assert ratio is not None
                rounds = count_of(table.count(name), "round")
                why = f"after {rounds} at {ratio.value:.2f}x {leader}, surely above {surely:.2f}x"
                runners[name].end(Fate.STOPPED, why)
        return leader

    def _passes(self, runner: Runner) -> bool:
        """Whether a variant keeps the accuracy; if it does not, others are entered in its place."""
        if self._runners.keeps(runner):
            return True
        if runner.fate is Fate.REJECTED and runner.name == runner.variant.name:
            self._runners.enter_others(runner.variant)
        return False

    def _enter_waiting(self, leader: str | None) -> None:
        """Make the variants that may win, and say of the others why they are not made."""
        table, runners = self._table, self._runners
        ratios = {
            name: ratio.value
            for name in runners.all
            if leader is not None and (ratio := table.ratio(name, leader)) is not None
        }
        for variant in runners.waiting:
            alike = {name for name in ratios if runners[name].variant.precision == variant.precision}
            best = min({variant.like} & ratios.keys() or alike, key=lambda name: ratios[name], default=None)
            if best is None or ratios[best] <= NEAR:
                runners.enter(variant)
                continue
            what = "whose kernels it has" if best == variant.like else f"the fastest in {variant.precision}"
            long = ", which takes long" if variant.dear else ""
            runners.left_out[variant.name] = (
                f"not made{long}: {best}, {what}, is at {ratios[best]:.2f}x {leader}"
            )

    def _try_threads(self, leader: str) -> None:
        """Where threads are open, the leader also runs with more of them, and on the first and last core."""
        cores = self._cores_offered()
        if self._given.place.threads is not None or len(cores) < 2 or len(self._rounds) >= MAX_ROUNDS:
            return
        counts = sorted({2**power for power in range(1, 8) if 2**power <= len(cores)} | {len(cores)})
        runner = self._runners[leader]
        for threads in counts:
            self._runners.again(runner, replace(runner.target, threads=threads), f"@{threads}")
        free = not {"cores"} & set(runner.target.settings)
        if "cores" in runtime_of(runner.target).options and free:
            for core in (cores[0], cores[-1]):
                options = (*runner.target.options, f"cores={core}")
                self._runners.again(runner, replace(runner.target, options=options), f"+cores={core}")

    def _measure_memory(self, connection: Any) -> None:
        """The peak memory of a process of its own, for those that were measured to the end.

        One that ran alone on its target in a round had such a process.
        """
        for name in self._runners.alive:
            runner = self._runners[name]
            peaks = [
                found.launches[name].peak_memory_bytes for found in self._rounds if self._alone(name, found)
            ]
            if peaks:
                runner.peak_memory_bytes = peaks[-1]
                continue
            try:
                alone = measure_round([self._runners.entrant(runner)], self._given.protocol, 0, connection)
            except LatheError:
                continue
            if name in alone.launches:
                runner.peak_memory_bytes = alone.launches[name].peak_memory_bytes

    def _alone(self, name: str, found: Round) -> bool:
        """Whether a variant was measured in a round in which no other shared its process."""
        others = (found.launches.keys() | found.failed.keys()) - {name}
        target = self._runners[name].target
        return name in found.launches and all(self._runners[other].target != target for other in others)

    def _past(self) -> list[Round]:
        """Rounds that an earlier call measured, up to the first in which something failed that may pass."""
        path = self._folder / _JOURNAL
        if not path.exists():
            return []
        found = []
        for line in path.read_bytes().splitlines():
            try:
                past = _rounds().validate_json(line)
            except ValueError:
                break
            if any(reason.code in PASSING_CODES for reason in past.failed.values()):
                break
            found.append(past)
        return found

    def _note(self, found: Round) -> None:
        lines = [_rounds().dump_json(each).decode() for each in (*self._rounds, found)]
        write_atomically(self._folder / _JOURNAL, ("\n".join(lines) + "\n").encode())
