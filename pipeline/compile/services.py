"""What the stages of a compilation are handed beside their input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.measurement import BetweenBatches, DeviceIdentity
from pipeline.progress import Reporter
from pipeline.work.folder import WorkFolder

BetweenOf = Callable[[DeviceIdentity], BetweenBatches]
"""How far batches differ on a device, by which a budget in milliseconds is judged."""


def assumed() -> BetweenOf:
    """What is taken without any history."""
    from latency_db.history import PRIOR

    return lambda device: PRIOR


@dataclass(frozen=True)
class CompileServices:
    """What is there whatever is asked.

    Attributes:
        reporter: where to report.
        work: in which stages of parts are found by their whole input.
        history: opens what is known of devices. Called before anything is measured, and not where all is
            known already.
    """

    reporter: Reporter
    work: WorkFolder
    history: Callable[[], BetweenOf] = assumed
