"""Keeps what was measured in the latency database, and asks it how far the device changes between batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devices.measurement import BetweenBatches, DeviceIdentity, Measurement, Outcome
from latency_db.history import history_of
from latency_db.store import Store, Workload, open_store
from pipeline.cli.profile.text import printable


@dataclass
class Keeper:
    """The database of one command."""

    store: Store
    _between: dict[DeviceIdentity, BetweenBatches] = field(default_factory=dict)

    def keep(self, model: str, signature: str, outcome: Outcome) -> None:
        """Store what was measured of a file; a failure is told and not stored.

        Raises:
            StoreError: the database cannot be written.
        """
        if isinstance(outcome, Measurement):
            workload = _workload(model, signature, outcome)
            self.store.add(workload, outcome.runtime, outcome.device, outcome.protocol, outcome)
            self._between.pop(outcome.device, None)

    def between(self, measurement: Measurement) -> BetweenBatches:
        """How far batches differ on the device of a measurement.

        Raises:
            StoreError: the database cannot be read.
        """
        device = measurement.device
        if device not in self._between:
            self._between[device] = history_of(self.store, device).between
        return self._between[device]


@contextmanager
def keeper(db: str | None) -> Iterator[Keeper]:
    """Open the database while a block runs.

    Raises:
        StoreError: it cannot be opened or created.
    """
    with open_store(db) as store:
        yield Keeper(store)


def _workload(model: str, signature: str, measurement: Measurement) -> Workload:
    """A file with what it was fed: the same file at another shape is another workload."""
    content = {
        "artifact": measurement.artifact_digest,
        "signature": signature,
        "inputs": [asdict(each) for each in measurement.inputs],
    }
    return Workload.of("network", f"file {printable(Path(model).name)}", content)
