"""Stage ``race``: variants measured in rounds; those that are surely slower or lose too much are stopped.

In a round each variant that is still of interest has one launch, all runtimes under the same conditions. The
fastest is asked for its accuracy; if that drops too far, it is out, and variants that may stand in its place
are tried. The fastest that passes is the leader, and whoever is surely slower than it by ``MARGIN`` gets no
further launches. The leader, the baseline and what cannot be told from the leader run in all rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from devices.errors import LatheError, MeasurementError, TargetError
from devices.inventory import connected, runtime_of
from devices.measurement import Measurement, MeasurementFailure, MeasuringProtocol, Verdict
from devices.measuring import LAUNCHES, Entrant, Round, Rounds, measure_round, probe
from devices.target import Target
from devices.words import count_of
from pipeline.compile.choice import Rules, choose
from pipeline.compile.making import Made, MakeInput, make_variant, measure_sensitivity
from pipeline.compile.model import GivenModel
from pipeline.compile.place import Place, is_as_it_comes
from pipeline.compile.quality import (
    Outputs,
    Quality,
    outputs_input,
    quality_of,
    reference_target,
    take_outputs,
)
from pipeline.compile.result import Fate, Objective, Raced, Row
from pipeline.compile.samples import Samples, open_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.traps import traps_of, traps_of_all
from pipeline.compile.variants import CompileVariant, ModelFormat
from pipeline.errors import ExportError
from pipeline.progress import Reporter
from pipeline.work.canonical import StoredFile
from pipeline.work.disk import write_atomically
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder, stage

MARGIN = 1.03
"""A variant that is surely slower than the leader by more is stopped."""
MAX_ROUNDS = 2 * LAUNCHES
_JOURNAL = "rounds.jsonl"
_ROUND = TypeAdapter(Round)


@dataclass(frozen=True)
class RaceInput:
    """Who races where, by which rules.

    Attributes:
        model: that is compiled.
        samples: to calibrate and compare with.
        place: where.
        identity: what stands behind the place now.
        variants: names of those that may be made there, with the versions that decide them.
        unfit: names of those that may not, with the reason.
        rules: of the choice.
        protocol: of the measurement.
    """

    model: GivenModel
    samples: Samples
    place: Place
    identity: Any
    variants: Mapping[str, Mapping[str, str]]
    unfit: Mapping[str, str]
    rules: Rules
    protocol: MeasuringProtocol


def _is_final(raced: Raced) -> bool:
    return not any(row.passing for row in raced.rows)


@stage("race", final=_is_final)
def race(given: RaceInput, folder: StageFolder, services: CompileServices) -> Raced:
    """Make, compare and measure variants; after a kill it goes on from its last round.

    A variant that took too long to make, or lacked memory, is tried again by the next call.

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


@dataclass
class _Runner:
    """One variant on one target, as far as is known."""

    name: str
    variant: CompileVariant
    target: Target
    made: Made
    fate: Fate = Fate.MEASURED
    why: str = ""
    quality: Quality | None = None
    peak_memory_bytes: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class _Race:
    def __init__(self, given: RaceInput, folder: StageFolder, services: CompileServices) -> None:
        self._given, self._folder, self._services = given, folder, services
        self._runners: dict[str, _Runner] = {}
        self._left_out: dict[str, str] = dict(given.unfit)
        self._expected: np.ndarray[Any, Any] | None = None
        self._rounds: list[Round] = []
        self._cores = 1
        self._threads_tried = False

    def run(self) -> Raced:
        given = self._given
        self._ready()
        baseline = self._make_all()
        self._cores = self._cores_of(self._runners[baseline].target)
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

            while due := self._due(baseline):
                number = len(self._rounds)
                if number < len(past) and set(past[number].launches) | set(past[number].failed) == set(due):
                    found = past[number]
                else:
                    past = past[:number]
                    entrants = [self._entrant(self._runners[name]) for name in due]
                    found = measure_round(entrants, given.protocol, number, connection, on_timed=timed)
                    # One that ends the race is measured again by the next call.
                    if found.lost is None and baseline not in found.failed:
                        self._note(found)
                self._take(found, baseline)
                leader = self._judge(baseline)
                if leader and not self._due(baseline) and not self._threads_tried:
                    self._threads_tried = True
                    self._try_threads(leader)
            self._measure_memory(connection)
        return self._result(baseline, started_at)

    def everything(self) -> dict[str, Candidate]:
        """All that can be made, and whether it keeps the accuracy."""
        found = {}
        for variant in self._ready():
            if self._not_allowed(variant):
                continue
            other = self._variants.get(variant.instead_of, variant)
            runner = self._enter(variant, self._sensitive(variant, other) if variant.from_sensitivity else ())
            if runner.made.file is not None:
                keeps = not self._why_rejected(runner)
                found[runner.name] = Candidate(self._entrant(runner), keeps)
        return found

    def _ready(self) -> list[CompileVariant]:
        given = self._given
        self._variants = {
            variant.name: variant for variant, _ in given.place.variants() if variant.name in given.variants
        }
        return list(self._variants.values())

    def _cores_of(self, target: Target) -> int:
        return probe(target)[1].cores

    def _make_all(self) -> str:
        """Make the variants that start; the name of the baseline."""
        starters = []
        for variant in self._variants.values():
            if variant.instead_of:
                self._left_out[variant.name] = f"tried only if {variant.instead_of} loses too much accuracy"
            elif why := self._not_allowed(variant):
                self._left_out[variant.name] = why
            else:
                starters.append(variant)
        with self._services.reporter.task("making variants", "variants") as task:
            for done, variant in enumerate(starters):
                task(done, len(starters))
                self._enter(variant)
        order = sorted(
            (name for name, each in self._runners.items() if is_as_it_comes(each.variant)),
            key=lambda name: self._runners[name].variant.runtime != "onnxruntime",
        )
        for name in order:
            if self._runners[name].fate is Fate.MEASURED:
                return name
        whys = [f"{name}: {each.why}" for name, each in self._runners.items()]
        raise ExportError(
            f"{self._given.model.name} cannot be compiled for {self._given.place}",
            why="; ".join(whys) or "no runtime there takes models of its format",
            fix="install a runtime that takes it; see docs/devices/runtimes.md",
        )

    def _not_allowed(self, variant: CompileVariant) -> str:
        """Why a variant that changes outputs is not tried; empty where it is."""
        model, samples, rules = self._given.model, self._given.samples, self._given.rules
        if variant.lossless:
            return ""
        if model.quantised:
            return "the model is quantised already"
        if model.input.dtype != "float32":
            return f"the model's input is {model.input.dtype}"
        why = ""
        if samples.random:
            why = "there are no data to tell what it does to the accuracy; give --data, or --force"
        elif model.classes is None:
            why = "the model's output is no row of class scores, so no loss can be told; see --force"
        return "" if rules.forced else why

    def _enter(self, variant: CompileVariant, sensitive: tuple[str, ...] = ()) -> _Runner:
        given = self._given
        self._left_out.pop(variant.name, None)
        target = given.place.target(variant.runtime, variant.precision)
        making = MakeInput.of(given.model, variant, target, given.samples, sensitive)
        made = self._services.work.run(make_variant, making, self._services)
        runner = _Runner(variant.name, variant, target, made)
        if made.file is None:
            runner.fate, runner.why = Fate.FAILED, made.why_not
        self._runners[runner.name] = runner
        return runner

    def _entrant(self, runner: _Runner) -> Entrant:
        assert runner.made.file is not None
        return Entrant(runner.name, self._folder.find(runner.made.file), runner.target)

    @property
    def _table(self) -> Rounds:
        return Rounds(tuple(self._rounds), self._given.protocol, self._cores)

    @property
    def _alive(self) -> list[str]:
        return [name for name, each in self._runners.items() if each.fate is Fate.MEASURED]

    def _due(self, baseline: str) -> list[str]:
        """Who runs in the next round: all that have not had enough, and the baseline beside them."""
        if len(self._rounds) >= MAX_ROUNDS:
            return []
        table, alive = self._table, self._alive
        leader = self._ordered(baseline)[:1] if self._rounds else []
        doubtful = [name for name in {baseline, *leader} if table.count(name) and not table.valid(name)]
        waiting = doubtful + [name for name in alive if table.count(name) < LAUNCHES]
        if not waiting:
            return []
        kept = {*waiting, baseline, *leader}
        return [name for name in alive if name in kept]

    def _ordered(self, baseline: str) -> list[str]:
        """Those that run, the best by what is wanted first."""
        table = self._table
        if self._given.rules.objective is Objective.SIZE:
            return sorted(self._alive, key=lambda name: self._runners[name].made.size_bytes)
        ratios = {name: table.ratio(name, baseline) for name in self._alive}
        return sorted(
            (name for name in self._alive if ratios[name] is not None),
            key=lambda name: ratios[name].value,  # type: ignore[union-attr]
        )

    def _take(self, found: Round, baseline: str) -> None:
        self._rounds.append(found)
        for name, reason in found.failed.items():
            if name == baseline:
                raise MeasurementError(
                    f"{self._given.model.name} itself does not run on {self._runners[name].target}",
                    why=f"{reason.code}: {reason.detail}",
                    fix="choose another runtime, or export the model with operators that this one has",
                )
            self._end(name, Fate.FAILED, f"{reason.code}: {reason.detail}")
        if found.lost is not None:
            raise TargetError(
                f"'{self._given.place.device}' went away while variants were measured",
                why=found.lost.detail,
                fix="run the same command again when it is back; it goes on from the last round",
            )

    def _end(self, name: str, fate: Fate, why: str) -> None:
        self._runners[name].fate, self._runners[name].why = fate, why

    def _judge(self, baseline: str) -> str | None:
        """Find the leader, and stop whoever is surely worse."""
        table = self._table
        if len(self._rounds) < 2:
            return None
        leader = next((name for name in self._ordered(baseline) if self._passes(name)), None)
        if leader is None:
            return None
        for name in self._alive:
            if name in (leader, baseline) or table.count(name) < 2:
                continue
            if self._given.rules.objective is Objective.SIZE:
                more = self._runners[name].made.size_bytes / self._runners[leader].made.size_bytes
                if more > MARGIN:
                    self._end(name, Fate.STOPPED, f"at {more:.2f}x the size of {leader}")
            elif (surely := table.at_least(name, leader)) > MARGIN:
                ratio = table.ratio(name, leader)
                assert ratio is not None
                rounds = count_of(table.count(name), "round")
                why = f"after {rounds} at {ratio.value:.2f}x {leader}, surely above {surely:.2f}x"
                self._end(name, Fate.STOPPED, why)
        return leader

    def _passes(self, name: str) -> bool:
        """Whether a variant keeps the accuracy; if it does not, others are entered in its place."""
        runner = self._runners[name]
        if why := self._why_rejected(runner):
            self._end(name, Fate.REJECTED, why)
            self._enter_others(runner.variant)
            return False
        return True

    def _why_rejected(self, runner: _Runner) -> str:
        rules = self._given.rules
        quality = runner.quality = runner.quality or self._quality(runner)
        if quality is None:
            return runner.why
        if not quality.finite:
            return "its outputs are inf or NaN" + (
                ", as fp16 overflows at 65504" if runner.variant.precision == "fp16" else ""
            )
        drop = quality.drop
        if rules.forced or runner.variant.lossless or drop is None or drop <= rules.max_drop:
            return ""
        if quality.accuracy is None:
            return f"{drop:.2f} % of the classes change, more than {rules.max_drop:g}"
        return f"loses {drop:.2f} points of accuracy, more than {rules.max_drop:g}"

    def _enter_others(self, rejected: CompileVariant) -> None:
        """Make what may stand in a variant's place until one keeps the accuracy; that one races."""
        for variant in self._variants.values():
            if variant.instead_of != rejected.name or self._not_allowed(variant):
                continue
            try:
                sensitive = self._sensitive(variant, rejected) if variant.from_sensitivity else ()
            except ExportError as error:
                self._left_out[variant.name] = f"{error.what}: {error.why}" if error.why else error.what
                continue
            runner = self._enter(variant, sensitive)
            if runner.fate is Fate.MEASURED and not (why := self._why_rejected(runner)):
                return
            if runner.fate is Fate.MEASURED:
                self._end(variant.name, Fate.REJECTED, why)

    def _sensitive(self, variant: CompileVariant, other: CompileVariant) -> tuple[str, ...]:
        """Operators, the most sensitive first, as measured in another variant."""
        target = self._given.place.target(variant.runtime, variant.precision)
        making = MakeInput.of(self._given.model, variant, target, self._given.samples)
        found = self._services.work.run(
            measure_sensitivity, replace(making, variant=other.name), self._services
        )
        return tuple(layer.name for layer in found.layers)

    def _quality(self, runner: _Runner) -> Quality | None:
        """Outputs beside the model's own; ``None`` if it cannot be run, which ends it."""
        given = self._given
        if given.model.input.dtype != "float32":
            return Quality(0.0, 0.0, None, None, None, 0)
        assert runner.made.file is not None
        try:
            actual = self._outputs(runner.made.file, runner.variant.takes, runner.target)
        except LatheError as error:
            runner.why = f"its outputs cannot be taken: {error.what} {error.why}".strip()
            return None
        arrays = open_samples(given.samples, self._folder.find(given.samples.arrays))
        return quality_of(self._reference(), actual, arrays.get("labels"), given.model.classes)

    def _reference(self) -> np.ndarray[Any, Any]:
        """The model's own outputs, on this machine."""
        if self._expected is None:
            fmt = ModelFormat.LITERT if self._given.model.format is ModelFormat.LITERT else ModelFormat.ONNX
            files = self._given.model.files
            fmt = fmt if fmt in files else next(iter(files))
            expected = self._outputs(files[fmt], fmt, reference_target(fmt))
            if not np.isfinite(expected).all():
                raise ExportError(
                    f"{self._given.model.name} itself gives inf or NaN",
                    why="nothing can be compared with such outputs",
                    fix="give inputs as the model takes them, with --data, --mean and --std, or repair it",
                )
            self._expected = expected
        return self._expected

    def _outputs(self, file: StoredFile, takes: ModelFormat, target: Target) -> np.ndarray[Any, Any]:
        asked = outputs_input(file, takes, target, self._given.model, self._given.samples)
        outputs: Outputs = self._services.work.run(take_outputs, asked, self._services)
        return np.asarray(np.load(self._folder.find(outputs.array), allow_pickle=False))

    def _try_threads(self, leader: str) -> None:
        """Where threads are open, the leader also runs with more of them, and on the first and last core."""
        given = self._given
        if given.place.threads is not None or self._cores < 2:
            return
        counts = sorted({2**power for power in range(1, 8) if 2**power <= self._cores} | {self._cores})
        runner = self._runners[leader]
        for threads in counts:
            self._again(runner, replace(runner.target, threads=threads), f"@{threads}")
        free = not {"cores"} & set(runner.target.settings)
        if "cores" in runtime_of(runner.target).options and free:
            for core in (0, self._cores - 1):
                options = (*runner.target.options, f"cores={core}")
                self._again(runner, replace(runner.target, options=options), f"+cores={core}")

    def _again(self, runner: _Runner, target: Target, suffix: str) -> None:
        name = f"{runner.name}{suffix}"
        self._runners[name] = _Runner(name, runner.variant, target, runner.made, quality=runner.quality)

    def _measure_memory(self, connection: Any) -> None:
        """The peak memory of a process of its own, for those that were measured to the end."""
        for name in self._alive:
            runner = self._runners[name]
            try:
                alone = measure_round([self._entrant(runner)], self._given.protocol, 0, connection)
            except LatheError:
                continue
            if name in alone.launches:
                runner.peak_memory_bytes = alone.launches[name].peak_memory_bytes

    def _past(self) -> list[Round]:
        """Rounds that were measured before the stage was killed."""
        path = self._folder / _JOURNAL
        if not path.exists():
            return []
        found = []
        for line in path.read_text("utf-8").splitlines():
            try:
                found.append(_ROUND.validate_json(line))
            except ValueError:
                break
        return found

    def _note(self, found: Round) -> None:
        lines = [_ROUND.dump_json(each).decode() for each in (*self._rounds, found)]
        write_atomically(self._folder / _JOURNAL, ("\n".join(lines) + "\n").encode())

    def _result(self, baseline: str, started_at: str) -> Raced:
        for name in self._alive:
            runner = self._runners[name]
            if name != baseline and (why := self._why_rejected(runner)):
                self._end(name, Fate.REJECTED, why)
        baseline_runner = self._runners[baseline]
        baseline_runner.quality = baseline_runner.quality or self._quality(baseline_runner)
        rows = [self._row(runner, baseline, started_at) for runner in self._runners.values()]
        rows.sort(key=lambda row: (row.name != baseline, row.latency_ms is None, row.latency_ms or 0.0))
        rows += [
            Row(name, name, str(self._given.place), Fate.LEFT_OUT, why)
            for name, why in self._left_out.items()
        ]
        found = choose(tuple(rows), baseline, self._given.rules, self._table)
        warnings = (*self._given.model.notes, *self._given.samples.notes)
        return replace(
            found,
            place=str(self._given.place),
            warnings=(*warnings, *found.warnings, *traps_of_all(found, self._given.model)),
        )

    def _row(self, runner: _Runner, baseline: str, started_at: str) -> Row:
        table, made = self._table, runner.made
        outcome = None
        if made.file is not None and table.count(runner.name):
            outcome = table.outcome(self._entrant(runner), started_at)
        fate, why = runner.fate, runner.why
        if isinstance(outcome, MeasurementFailure):
            fate, why, outcome = Fate.FAILED, f"{outcome.reason.code}: {outcome.reason.detail}", None
        elif isinstance(outcome, Measurement) and outcome.verdict is Verdict.INVALID and not why:
            why = "; ".join(reason.detail for reason in outcome.reasons)
        path = None if made.file is None else self._folder.find(made.file)
        return Row(
            runner.name,
            runner.variant.name,
            str(runner.target),
            fate,
            why,
            runner.variant.lossless,
            made.file,
            made.notes,
            made.size_bytes or None,
            runner.quality,
            outcome,
            table.ratio(runner.name, baseline),
            table.count(runner.name),
            runner.peak_memory_bytes,
            traps_of(path, self._given.model, outcome) if path is not None else (),
            made.passing,
        )


def everything(given: RaceInput, work: WorkFolder, reporter: Reporter) -> dict[str, Candidate]:
    """Every variant made and compared with the model, also those that a race would not try.

    Args:
        given: as of a race.
        work: an opened folder.
        reporter: where to tell of progress.

    Returns:
        By name, those that can be made and run.
    """
    folder = StageFolder(work.stages / "everything")
    return _Race(given, folder, CompileServices(reporter, work)).everything()
