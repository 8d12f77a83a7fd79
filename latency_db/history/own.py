"""What the user's own database tells of the devices that are measured now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from devices.measurement import BetweenBatches, Measurement
from latency_db.errors import NoDatabaseError
from latency_db.history.reading import history_of
from latency_db.store import open_store


@contextmanager
def own_history(db: str | None) -> Iterator[Callable[[Measurement], BetweenBatches | None]]:
    """How far batches differ on the device of a measurement; ``None`` where nothing was seen of it.

    Args:
        db: URL or file of the database; the user's own if ``None``, which need not be there.

    Raises:
        StoreError: the database cannot be read, or the one that is named is not there.
    """
    try:
        store = open_store(db, must_exist=True)
    except NoDatabaseError:
        if db is not None:
            raise
        store = None
    if store is None:
        yield lambda measurement: None
        return
    with store:

        def between(measurement: Measurement) -> BetweenBatches | None:
            found = history_of(store, measurement.device).between
            return None if found.assumed else found

        yield between
