"""Which machines a database knows by the name of a device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select

from devices.measurement import DeviceIdentity
from latency_db.errors import StoreError
from latency_db.history.reading import moment_of
from latency_db.store.database import fetch, shown
from latency_db.store.schema import devices, measurements
from latency_db.store.store import Store

_DEVICE = TypeAdapter(DeviceIdentity)


@dataclass(frozen=True)
class Machine:
    """One machine with what is stored of it.

    Attributes:
        identity: of the kind, and of this one.
        rows: stored outcomes, failures too.
        seen_last: when the newest of them began; UTC.
    """

    identity: DeviceIdentity
    rows: int
    seen_last: datetime


def machines_of(store: Store, name: str) -> list[Machine]:
    """The machines on which a target of this device ran, the one seen last first.

    A name is only known where it was given: databases that were merged may call several machines ``host``,
    and a device that got a new kernel is another kind.

    Raises:
        StoreError: there is none, or the database cannot be read.
    """
    query = (
        select(
            devices.c.content,
            measurements.c.instance,
            func.count().label("rows"),
            func.max(measurements.c.started_at).label("seen_last"),
        )
        .join(devices, measurements.c.device == devices.c.digest)
        .where(measurements.c.target.startswith(f"{name}/", autoescape=True))
        .group_by(measurements.c.device, devices.c.digest, measurements.c.instance)
    )
    found = []
    for row in fetch(store.engine, query):
        try:
            identity = _DEVICE.validate_python({**row["content"], "instance": row["instance"]})
        except (ValidationError, TypeError):
            continue  # `lathe db check` tells of damaged contents.
        moment = moment_of(row["seen_last"])
        if moment is not None:
            found.append(Machine(identity, row["rows"], moment))
    if not found:
        raise StoreError(
            f"the latency database knows nothing of the device '{name}'",
            why=f"no measurement on a target {name}/... is stored in {shown(store.engine.url)}",
            fix=f"measure something there, as lathe profile MODEL --target {name}/onnxruntime:fp32@1 does, "
            "or choose another database with --db",
        )
    return sorted(found, key=lambda machine: machine.seen_last, reverse=True)
