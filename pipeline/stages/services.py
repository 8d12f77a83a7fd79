"""What stages are handed that can never decide a result."""

from __future__ import annotations

from dataclasses import dataclass, field

from devices.measurement import MeasuringProtocol
from latency_db.store import Store
from latency_db.tables import Measurer, default_measurer
from pipeline.export.cached_exports import exported
from pipeline.progress import Reporter
from pipeline.search.evaluated_before import EvaluatedBefore
from pipeline.search.evaluators.workers import InProcess, MakePool
from pipeline.tables.building.bench import Bench, Exporting
from pipeline.work.folder import WorkFolder


@dataclass(frozen=True)
class Services:
    """The latency database, where to report, the work folder, processes, and what measures and exports.

    Attributes:
        store: a measurement is found in it by all that decides it, so whether it was there changes nothing.
            The history of a device is asked once for what a stage keeps: it decides how wide intervals in
            milliseconds are.
        reporter: where to tell of progress.
        work: where the stages of parts are found, each by its whole input.
        workers: processes that train blocks side by side.
        pool: where candidates are evaluated.
        measurer: measures on targets; the devices themselves, but for tests.
        export: makes files of blocks and networks to be measured; the exporters, but for tests.
        evaluated: scores of candidates, found in it by all that decides them.
    """

    store: Store
    reporter: Reporter
    work: WorkFolder
    workers: int = 1
    pool: MakePool = InProcess
    measurer: Measurer = field(default_factory=default_measurer)
    export: Exporting = exported
    evaluated: EvaluatedBefore = field(default_factory=EvaluatedBefore)

    def bench(self, protocol: MeasuringProtocol) -> Bench:
        """Where latencies are measured by a protocol."""
        return Bench(self.store, protocol, self.reporter, self.measurer, self.export)
