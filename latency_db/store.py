"""The store of measurements: append-only, found again by the four-part key."""

from __future__ import annotations

import platform
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from devices.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from latency_db.database import default_url, explained_errors, open_engine
from latency_db.errors import StoreError
from latency_db.keys import Key, Workload, kind_of_device
from latency_db.schema import PARTS, SCHEMA_VERSION, measurements

_FAILED = "failed"

_LAUNCHES = TypeAdapter(tuple[Launch, ...])
_REASONS = TypeAdapter(tuple[Reason, ...])
_RUNTIME = TypeAdapter(RuntimeIdentity)
_DEVICE = TypeAdapter(DeviceIdentity)
_PROTOCOL = TypeAdapter(MeasuringProtocol)


def open_store(url: str | None = None) -> Store:
    """Open the store at a path or SQLAlchemy URL (default: ``default_url()``), creating it if need be.

    Raises:
        StoreError: it cannot be opened or created, is damaged, or has a newer schema.
    """
    return Store(open_engine(url or default_url()))


class Store:
    """Measurements and failures, kept for ever; a context manager. Several processes may write at once.

    Every method raises ``StoreError`` when the database cannot be read or written; what was stored before
    is never lost by that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known_parts: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def add(
        self,
        workload: Workload,
        runtime: RuntimeIdentity,
        device: DeviceIdentity,
        protocol: MeasuringProtocol,
        outcome: Outcome,
    ) -> Key:
        """Store one outcome and return the key that finds it; it is on disk when this returns.

        Raises:
            ValueError: a measurement ran on another runtime, device or protocol than those given.
        """
        key = Key.of(workload, runtime, device, protocol)
        if isinstance(outcome, Measurement) and (outcome.runtime, outcome.device, outcome.protocol) != (
            runtime,
            device,
            protocol,
        ):
            raise ValueError("the measurement ran on another runtime, device or protocol than given")
        contents = {
            "workload": {"kind": workload.kind, "description": workload.description},
            "runtime": asdict(runtime),
            "device": kind_of_device(device),
            "protocol": asdict(protocol),
        }
        row = {
            **asdict(key),
            **_columns(outcome),
            "instance": device.instance,
            "target": outcome.target,
            "artifact_digest": outcome.artifact_digest,
            "provenance": _provenance(),
        }
        with explained_errors(self._engine.url):
            for part, content in contents.items():
                self._keep_part(part, getattr(key, part), content)
            with self._engine.begin() as connection:
                connection.execute(insert(measurements).values(row))
        return key

    def find(self, key: Key) -> Outcome | None:
        """The newest outcome under exactly this key that is not an invalid measurement, or ``None``."""
        runtimes, devices, protocols = PARTS["runtime"], PARTS["device"], PARTS["protocol"]
        query = (
            select(
                measurements,
                runtimes.c.content.label("runtime_content"),
                devices.c.content.label("device_content"),
                protocols.c.content.label("protocol_content"),
            )
            .join(runtimes, measurements.c.runtime == runtimes.c.digest)
            .join(devices, measurements.c.device == devices.c.digest)
            .join(protocols, measurements.c.protocol == protocols.c.digest)
            .where(*(measurements.c[part] == getattr(key, part) for part in PARTS))
            .where(measurements.c.verdict != Verdict.INVALID.value)
            .order_by(measurements.c.id.desc())
            .limit(1)
        )
        with explained_errors(self._engine.url), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _outcome(row)

    def explain_miss(self, key: Key) -> str:
        """Why ``find(key)`` gives nothing: which part of the key differs from what is stored, and how."""
        columns = [measurements.c[part] for part in PARTS]
        query = (
            select(*columns, func.max(measurements.c.id))
            .where(measurements.c.workload == key.workload)
            .group_by(*columns)
            .order_by(func.max(measurements.c.id).desc())
        )
        with explained_errors(self._engine.url), self._engine.connect() as connection:
            stored = [Key(*row[: len(PARTS)]) for row in connection.execute(query)]
        if not stored:
            return f"this workload was never measured; the database holds {self.count()} outcomes of others"
        nearest = min(stored, key=lambda other: len(_differing(key, other)))
        differing = _differing(key, nearest)
        if not differing:
            if self.find(key) is not None:
                return "nothing is missing: an outcome is stored under this key"
            return "it was measured under this key, but never validly"
        differences = (
            f"the {part} differs: {self._difference(part, getattr(key, part), getattr(nearest, part))}"
            for part in differing
        )
        return "; ".join(differences)

    def count(self) -> int:
        """Number of stored outcomes, failures and invalid measurements included."""
        with explained_errors(self._engine.url), self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(measurements)) or 0

    def _keep_part(self, part: str, digest: str, content: Mapping[str, Any]) -> None:
        if (part, digest) in self._known_parts:
            return
        if self._part(part, digest) is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(PARTS[part]).values(digest=digest, content=content))
            except IntegrityError:
                if self._part(part, digest) is None:
                    raise
        self._known_parts.add((part, digest))

    def _part(self, part: str, digest: str) -> dict[str, Any] | None:
        table = PARTS[part]
        query = select(table.c.content).where(table.c.digest == digest)
        with self._engine.connect() as connection:
            content: dict[str, Any] | None = connection.scalar(query)
        return content

    def _difference(self, part: str, wanted_digest: str, stored_digest: str) -> str:
        with explained_errors(self._engine.url):
            wanted, stored = self._part(part, wanted_digest), self._part(part, stored_digest) or {}
        if wanted is None:
            return f"stored is {stored}, and what is asked for has never been stored"
        changes = (
            f"{name} {stored.get(name)!r} is stored, {wanted.get(name)!r} is asked for"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
        )
        return ", ".join(changes)


def _differing(key: Key, other: Key) -> list[str]:
    return [part for part in PARTS if getattr(key, part) != getattr(other, part)]


def _columns(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, MeasurementFailure):
        return {
            "verdict": _FAILED,
            "reasons": _REASONS.dump_python((outcome.reason,), mode="json"),
            "launches": None,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    return {
        "verdict": outcome.verdict.value,
        "reasons": _REASONS.dump_python(outcome.reasons, mode="json"),
        "launches": zlib.compress(_LAUNCHES.dump_json(outcome.launches)),
        "started_at": outcome.started_at,
    }


def _outcome(row: Row[Any]) -> Outcome:
    try:
        reasons = _REASONS.validate_python(row.reasons)
        if row.verdict == _FAILED:
            return MeasurementFailure(row.artifact_digest, row.target, reasons[0])
        return Measurement(
            artifact_digest=row.artifact_digest,
            target=row.target,
            runtime=_RUNTIME.validate_python(row.runtime_content),
            device=_DEVICE.validate_python({**row.device_content, "instance": row.instance}),
            protocol=_PROTOCOL.validate_python(row.protocol_content),
            launches=_LAUNCHES.validate_json(zlib.decompress(row.launches)),
            verdict=Verdict(row.verdict),
            reasons=reasons,
            started_at=row.started_at,
        )
    except (zlib.error, ValidationError, ValueError, IndexError) as error:
        raise StoreError(
            f"measurement {row.id} of the latency database cannot be read",
            why=f"its row is damaged: {error}",
            fix="restore the file from a copy, or choose another one with --db",
        ) from error


def _provenance() -> dict[str, Any]:
    """Versions that wrote a row."""
    try:
        lathe = version("lathe-deploy")
    except PackageNotFoundError:
        lathe = "unknown"
    return {"lathe": lathe, "python": platform.python_version(), "schema": SCHEMA_VERSION}
