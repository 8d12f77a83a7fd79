"""What the stages of a compilation are handed beside their input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.measurement import BetweenBatches, DeviceIdentity
from latency_db.history import PRIOR
from pipeline.progress import Reporter
from pipeline.work.folder import WorkFolder


@dataclass(frozen=True)
class CompileServices:
    """What is there whatever is asked.

    Attributes:
        reporter: where to report.
        work: in which stages of parts are found by their whole input.
        between: how far batches differ on a device, by which a budget in milliseconds is judged.
    """

    reporter: Reporter
    work: WorkFolder
    between: Callable[[DeviceIdentity], BetweenBatches] = lambda device: PRIOR
