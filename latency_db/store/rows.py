"""How one outcome is written as a row of the table of measurements, and read again.

A row's digest covers every other column, so that a copied row is known again in another database, and a
damaged one is seen. ``provenance.id`` makes rows of two measurements differ even where all else is equal.
"""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from devices.digests import value_digest
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
from latency_db.errors import StoreError
from latency_db.store.keys import WORKLOAD_KINDS, Key
from latency_db.store.schema import SCHEMA_VERSION, measurements

FAILED = "failed"
"""The verdict column of a failure."""

COLUMNS = tuple(column.name for column in measurements.columns if column.name != "id")

MOST_BYTES = 2 << 30
"""Of the JSON of a row's launches: an hour of a model of 50 us takes about a quarter of it."""

_FASTEST = 1  # Level 6 of zlib takes six times as long and saves a tenth.

_LAUNCHES = TypeAdapter(tuple[Launch, ...])
_REASONS = TypeAdapter(tuple[Reason, ...])
_RUNTIME = TypeAdapter(RuntimeIdentity)
_DEVICE = TypeAdapter(DeviceIdentity)
_PROTOCOL = TypeAdapter(MeasuringProtocol)


def row_of(key: Key, instance: str, outcome: Outcome) -> dict[str, Any]:
    """The columns of a new row, its digest included."""
    launches_json = None if isinstance(outcome, MeasurementFailure) else _LAUNCHES.dump_json(outcome.launches)
    row = {
        "workload": key.workload,
        "runtime": key.runtime,
        "device": key.device,
        "protocol": key.protocol,
        "instance": instance,
        "target": outcome.target,
        "artifact_digest": outcome.artifact_digest,
        **_columns(outcome),
        "launches": None if launches_json is None else packed(launches_json),
        "provenance": {**_versions(), "id": uuid4().hex},
    }
    row["digest"] = _digest(row, launches_json)
    return row


def _columns(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, MeasurementFailure):
        return {
            "verdict": FAILED,
            "reasons": [asdict(outcome.reason)],
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    return {
        "verdict": outcome.verdict.value,
        "reasons": [asdict(reason) for reason in outcome.reasons],
        "started_at": outcome.started_at,
    }


def packed(launches_json: bytes) -> bytes:
    """The launches as they are stored."""
    return zlib.compress(launches_json, _FASTEST)


def unpacked(launches: bytes) -> bytes:
    """The JSON of stored launches.

    Raises:
        ValueError: they are damaged.
    """
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(launches, MOST_BYTES)
    except (zlib.error, TypeError) as error:
        raise ValueError(f"its launches cannot be unpacked: {error}") from error
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"its launches are cut, or have more than {MOST_BYTES:,} bytes")
    return content


def digest_of(row: Mapping[str, Any]) -> str:
    """Digest of a row, computed from all columns but ``id`` and ``digest``.

    Raises:
        ValueError: its launches are damaged.
    """
    return _digest(row, None if row["launches"] is None else unpacked(row["launches"]))


def damage_of(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the columns of a row; ``None`` if it is as it was written."""
    if row["reasons"] is None or row["provenance"] is None:
        return "its JSON is damaged"
    try:
        fits = digest_of(row) == row["digest"]
    except (ValueError, TypeError):
        fits = False
    return None if fits else "it is not as it was written, its digest does not fit"


def damage_of_part(part: str, digest: str, content: Any, content_digest: str | None) -> str | None:
    """What is wrong with the content of a part of a key; ``None`` if it is as it was written.

    Args:
        part: which.
        digest: by which rows refer to it.
        content: as stored.
        content_digest: of a workload, what is stored as the digest of its content.
    """
    if content is None:
        return "its JSON is damaged, or it is not there"
    if part == "workload":
        known = isinstance(content, dict) and content.keys() == {"kind", "description"}
        if not known or content["kind"] not in WORKLOAD_KINDS or not isinstance(content["description"], str):
            return "its content is not one of a workload"
        digest = content_digest or ""
    try:
        return None if value_digest(content) == digest else "its content does not fit its digest"
    except (ValueError, TypeError) as error:
        return str(error)


def _digest(row: Mapping[str, Any], launches_json: bytes | None) -> str:
    content = {name: row[name] for name in COLUMNS if name not in ("digest", "launches")}
    launches = None if launches_json is None else hashlib.sha256(launches_json).hexdigest()
    return value_digest({**content, "launches": launches})


def outcome_of(row: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """The outcome that a row holds.

    Args:
        row: its columns.
        parts: content of its runtime, device and protocol.

    Raises:
        StoreError: the row is damaged.
    """
    try:
        reasons = _REASONS.validate_python(row["reasons"])
        if row["verdict"] == FAILED:
            return MeasurementFailure(row["artifact_digest"], row["target"], reasons[0])
        return Measurement(
            artifact_digest=row["artifact_digest"],
            target=row["target"],
            runtime=_RUNTIME.validate_python(parts["runtime"]),
            device=_DEVICE.validate_python({**parts["device"], "instance": row["instance"]}),
            protocol=_PROTOCOL.validate_python(parts["protocol"]),
            launches=_LAUNCHES.validate_json(unpacked(row["launches"])),
            verdict=Verdict(row["verdict"]),
            reasons=reasons,
            started_at=row["started_at"],
        )
    except (ValidationError, ValueError, IndexError, TypeError) as error:
        name = f"measurement {row['id']}" if "id" in row else f"the measurement with digest {row['digest']}"
        raise StoreError(
            f"{name} of the latency database cannot be read",
            why=f"its row is damaged: {error}",
            fix="see `lathe db check`; restore the file from a copy, or choose another one with --db",
        ) from error


@cache
def _versions() -> dict[str, Any]:
    """Versions that wrote a row."""
    try:
        lathe = version("lathe-deploy")
    except PackageNotFoundError:
        lathe = "unknown"
    return {"lathe": lathe, "python": platform.python_version(), "schema": SCHEMA_VERSION}
