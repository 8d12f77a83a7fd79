"""What a race found, as rows, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from devices.measurement import BetweenBatches, DeviceIdentity, Measurement, MeasurementFailure
from devices.measuring import Rounds
from pipeline.compile.choice import choose
from pipeline.compile.result import Fate, Raced, Row
from pipeline.compile.runners import RaceInput, Runner, Runners
from pipeline.compile.traps import traps_of, traps_of_all
from pipeline.work.stage import StageFolder


@dataclass(frozen=True)
class Finished:
    """A race that is over.

    Attributes:
        given: what it was asked.
        runners: all that took part.
        table: the rounds.
        started_at: when the first round began.
        folder: of the stage.
    """

    given: RaceInput
    runners: Runners
    table: Rounds
    started_at: str
    folder: StageFolder

    def raced(self, between: Callable[[DeviceIdentity], BetweenBatches]) -> Raced:
        """The rows, the front and the choice; ``between`` tells how far batches differ on a device."""
        given, runners = self.given, self.runners
        baseline = runners.baseline
        rows = [self._row(each) for each in runners.all.values()]
        rows.sort(key=lambda row: (row.name != baseline, row.latency_ms is None, row.latency_ms or 0.0))
        rows += [
            Row(name, name, str(given.place), Fate.LEFT_OUT, why) for name, why in runners.left_out.items()
        ]
        devices = [row.measurement.device for row in rows if row.measurement is not None]
        known = between(devices[0]) if devices else None
        found = choose(tuple(rows), baseline, given.rules, self.table, known, task=given.samples.task)
        unknown = runners[baseline].unknown
        warnings = (
            *given.model.notes,
            *given.samples.notes,
            *((f"{baseline} was not compared with the model: {unknown}",) if unknown else ()),
            *((runners.untuned,) if runners.untuned else ()),
            *traps_of_all(found, given.model),
        )
        sensitivity = runners.sensitivity(found.chosen)
        return replace(found, place=str(given.place), warnings=warnings, sensitivity=sensitivity)

    def _row(self, runner: Runner) -> Row:
        table, made, fate, why = self.table, runner.made, runner.fate, runner.why
        outcome = None
        if made.file is not None and table.count(runner.name):
            outcome = table.outcome(self.runners.entrant(runner), self.started_at)
        if isinstance(outcome, MeasurementFailure):
            fate, why, outcome = Fate.FAILED, f"{outcome.reason.code}: {outcome.reason.detail}", None
        elif isinstance(outcome, Measurement) and not outcome.sharp and not why:
            why = "; ".join(reason.detail for reason in outcome.reasons)
        path = None if made.file is None else self.folder.find(made.file)
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
            table.ratio(runner.name, self.runners.baseline),
            table.count(runner.name),
            runner.peak_memory_bytes,
            traps_of(path, self.given.model, outcome) if path is not None else (),
            runner.passing,
        )
