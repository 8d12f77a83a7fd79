"""Reads what a database knows of one machine: its batches with their canaries, and what was repeated."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import func, select

from devices.digests import value_digest
from devices.measurement import (
    BetweenBatches,
    DeviceIdentity,
    Interval,
    Launch,
    Measurement,
    Outcome,
    Verdict,
    quantile,
)
from latency_db.history.learning import Seen, learned
from latency_db.store.database import fetch
from latency_db.store.keys import kind_of_device
from latency_db.store.reading import sound_records
from latency_db.store.rows import FAILED
from latency_db.store.schema import measurements, protocols
from latency_db.store.store import Store

MOST_LISTED = 20_000
"""Newest rows of a machine among which batches and repeated measurements are looked for."""
MOST_BATCHES = 300
"""Newest batches whose canaries are read."""
MOST_REPEATS = 600
"""Newest repeated measurements that are read."""
MOST_BYTES = 4 << 20
"""Rows with larger launches are left out: hours of samples would have to be unpacked for one value."""

_LEAST_NS = 1e-3
_WIDEST = 10.0

AMPLIFIED = 1.3
"""How much farther networks move than the canary from batch to batch: 1.0 to 1.6 times, see the page of
results on drift."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """What a batch of launches tells of its device.

    Attributes:
        started_at: UTC.
        runtime: digest of its identity, since each runtime has a canary of its own.
        target: of the batch.
        verdict: of the measurement that was read.
        canary_ns: ``None`` where the runtime has none.
        canary_error: standard error of the canary's logarithm within the batch.
        width: how far that measurement's interval reaches to the farther side, as a logarithm.
        launches: of the measurement that was read.
        void: how many of these were void, by code.
        boot: since which start of the device; ``None`` where it does not tell.
    """

    started_at: datetime
    runtime: str
    target: str
    verdict: Verdict
    canary_ns: float | None
    canary_error: float
    width: float
    launches: int
    void: Mapping[str, int]
    boot: str | None = None


@dataclass(frozen=True)
class History:
    """What a database knows of one machine.

    Attributes:
        batches: the newest, in the order of their moments.
        repeats: what several batches measured with one runtime.
        set_back: batches that were stored after others that began later: the clock was set back meanwhile, or
            another database was merged in.
    """

    batches: tuple[Batch, ...]
    repeats: tuple[Seen, ...]
    set_back: int = 0

    @cached_property
    def between(self) -> BetweenBatches:
        """How far batches on this machine differ."""
        return learned([*self.canaries, *self.repeats])

    @property
    def canaries(self) -> list[Seen]:
        """The canaries of its usual batches, a series for each runtime, moved as far as networks would be."""
        return [
            Seen(
                batch.runtime,
                batch.started_at,
                batch.canary_ns**AMPLIFIED,
                AMPLIFIED * batch.canary_error,
                batch.width,
                batch.boot,
            )
            for batch in self.batches
            if batch.canary_ns is not None
        ]


def history_of(store: Store, device: DeviceIdentity, until: datetime | None = None) -> History:
    """What the database knows of the machine with this identity, and of no other of its kind.

    Args:
        store: the database.
        device: the machine.
        until: batches that began later are left out, so that what follows from the history of a moment stays
            what it was.

    Raises:
        StoreError: the database cannot be read.
    """
    rows = _listed(store, device, until)
    by_batch: dict[tuple[str, datetime], Row] = {}
    for row in rows:
        by_batch.setdefault((row["runtime"], row["moment"]), row)
    newest = list(by_batch.values())[:MOST_BATCHES]
    repeated = _repeated(rows)[:MOST_REPEATS]
    wanted = sorted({row["id"] for row in (*newest, *repeated)})
    by_id = {row["id"]: row for row in rows}
    batches: dict[int, Batch] = {}
    repeats: dict[int, Seen] = {}
    # Of each only what is needed is kept: the samples of all of them may take a gigabyte.
    for record in sound_records(store, wanted):
        if isinstance(record.outcome, Measurement):
            batches[record.id] = _batch(by_id[record.id], record.outcome)
            repeats[record.id] = _repeat(by_id[record.id], record.outcome)
    found = [batches[row["id"]] for row in newest if row["id"] in batches]
    return History(
        tuple(sorted(found, key=lambda batch: batch.started_at)),
        tuple(repeats[row["id"]] for row in repeated if row["id"] in repeats),
        _set_back(newest),
    )


def _listed(store: Store, device: DeviceIdentity, until: datetime | None) -> list[Row]:
    """Rows of a machine until a moment, without their launches; the newest first, each with its moment."""
    columns = [
        measurements.c[name] for name in ("id", "workload", "runtime", "target", "verdict", "started_at")
    ]
    query = (
        select(*columns, protocols.c.content.label("protocol"))
        .outerjoin(protocols, measurements.c.protocol == protocols.c.digest)
        .where(
            measurements.c.device == value_digest(kind_of_device(device)),
            measurements.c.instance == device.instance,
            measurements.c.verdict != FAILED,
            func.length(measurements.c.launches) <= MOST_BYTES,
        )
        .order_by(measurements.c.started_at.desc(), measurements.c.id.desc())
        .limit(MOST_LISTED)
    )
    if until is not None:
        # Before the limit: what is measured later must not crowd out what was known then.
        text = until.astimezone(UTC).isoformat(timespec="seconds")
        query = query.where(measurements.c.started_at <= text)
    return [
        {**row, "moment": moment}
        for row in fetch(store.engine, query)
        if (moment := moment_of(row["started_at"])) is not None and (until is None or moment <= until)
    ]


def moment_of(text: str) -> datetime | None:
    """A stored moment, in UTC; ``None`` for text that is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def latest(outcomes: Iterable[Outcome | None]) -> datetime | None:
    """When the last batch of these began; ``None`` where there is none."""
    moments = [moment_of(each.started_at) for each in outcomes if isinstance(each, Measurement)]
    return max((moment for moment in moments if moment is not None), default=None)


def _series(row: Row) -> tuple[str, str, Any]:
    """Rows with one series say the same: how often it was launched does not change what is measured."""
    return row["workload"], row["runtime"], (row["protocol"] or {}).get("headline_quantile")


def _repeated(rows: Sequence[Row]) -> list[Row]:
    """Rows of series that several batches measured, one row of each batch."""
    moments: dict[Any, dict[datetime, Row]] = defaultdict(dict)
    for row in rows:
        moments[_series(row)].setdefault(row["moment"], row)
    found = [row for series in moments.values() if len(series) > 1 for row in series.values()]
    return sorted(found, key=lambda row: row["moment"], reverse=True)


def _repeat(row: Row, measurement: Measurement) -> Seen:
    headlines = measurement.headlines_ns
    value_ns, error = quantile(headlines, 0.5), standard_error(headlines)
    return Seen(_series(row), row["moment"], value_ns, error, _width(measurement.latency), _boot(measurement))


def _batch(row: Row, measurement: Measurement) -> Batch:
    void: dict[str, int] = defaultdict(int)
    for launch in measurement.launches:
        if launch.void is not None:
            void[launch.void.code] += 1
    return Batch(
        row["moment"],
        row["runtime"],
        measurement.target,
        measurement.verdict,
        measurement.canary_ns,
        standard_error(_canaries(measurement.counted)),
        _width(measurement.latency),
        len(measurement.launches),
        dict(void),
        _boot(measurement),
    )


def _boot(measurement: Measurement) -> str | None:
    return measurement.launches[0].before.boot_id


def _width(latency: Interval) -> float:
    ends = (max(each, _LEAST_NS) for each in (latency.low_ns, latency.high_ns))
    return min(max(abs(math.log(end / max(latency.value_ns, _LEAST_NS))) for end in ends), _WIDEST)


def _canaries(launches: Sequence[Launch]) -> list[float]:
    return [quantile(launch.canary_ns, 0.5) for launch in launches if launch.canary_ns]


def standard_error(values: Sequence[float]) -> float:
    """Of the log of the median of some launches, from their median absolute deviation; 0 of a single one.

    A median of n normal values has pi / 2 times the variance of their mean.
    """
    if len(values) < 2:
        return 0.0
    logs = [math.log(value) for value in values]
    middle = quantile(logs, 0.5)
    deviation = 1.4826 * quantile([abs(value - middle) for value in logs], 0.5)
    return deviation * math.sqrt(math.pi / 2 / len(values))


def _set_back(newest: Sequence[Row]) -> int:
    """How many batches, in the order in which they were stored, began before one that was stored earlier."""
    count, latest = 0, None
    for row in sorted(newest, key=lambda row: row["id"]):
        if latest is not None and row["moment"] < latest:
            count += 1
        latest = row["moment"] if latest is None else max(latest, row["moment"])
    return count
