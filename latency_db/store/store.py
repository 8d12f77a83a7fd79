"""The store of measurements: append-only, found again by the four-part key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Engine, func, not_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from devices.digests import value_digest
from devices.measurement import (
    PASSING_CODES,
    DeviceIdentity,
    Measurement,
    MeasuringProtocol,
    Outcome,
    RuntimeIdentity,
    Verdict,
)
from latency_db.errors import StoreError
from latency_db.store.database import fetch, sqlite_file, transact
from latency_db.store.explain_miss import explanation
from latency_db.store.keys import Key, Workload
from latency_db.store.opening import default_url, open_engine
from latency_db.store.rows import FAILED, damage_of, damage_of_part, outcome_of, row_of
from latency_db.store.schema import PARTS, changeable, measurements, require_known_schema

_log = logging.getLogger(__name__)

IDENTITIES = ("runtime", "device", "protocol")
"""The parts of a key that an outcome holds."""

MOST_DISTURBED = 20
"""Disturbed measurements of one key among which the best is looked for, the newest."""

NewOutcome = tuple[Workload, RuntimeIdentity, DeviceIdentity, MeasuringProtocol, Outcome]
"""What ``Store.add`` takes."""


def open_store(url: str | None = None, *, must_exist: bool = False) -> Store:
    """Open the store at a path or SQLAlchemy URL (default: ``default_url()``).

    Args:
        url: path or URL.
        must_exist: never create a database; for whoever only reads. Otherwise one is created where none is.

    Raises:
        StoreError: it cannot be opened, created or migrated, is damaged, or has a newer schema; or it must
            exist and does not.
    """
    return Store(open_engine(url or default_url(), must_exist=must_exist))


class Store:
    """Measurements and failures, kept for ever; a context manager. Several processes may write at once.

    Every method raises ``StoreError`` when the database cannot be read or written; what was stored before
    is never lost by that. While a server does not answer, it is tried again for some seconds first.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._known_parts: set[tuple[str, str]] = set()
        self._file = sqlite_file(engine.url)
        self._file_identity = _identity(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()

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
        return self.add_all([(workload, runtime, device, protocol, outcome)])[0]

    def add_all(self, entries: Iterable[NewOutcome]) -> list[Key]:
        """Store many outcomes in one transaction, all or none; see ``add``."""
        keyed: list[tuple[Key, str, Outcome]] = []
        parts: dict[tuple[str, str], Mapping[str, Any]] = {}
        for workload, runtime, device, protocol, outcome in entries:
            if isinstance(outcome, Measurement) and (outcome.runtime, outcome.device, outcome.protocol) != (
                runtime,
                device,
                protocol,
            ):
                raise ValueError("the measurement ran on another runtime, device or protocol than given")
            key = Key.of(workload, runtime, device, protocol)
            parts |= {(part, getattr(key, part)): content for part, content in key.contents.items()}
            keyed.append((key, device.instance, outcome))
        self.put(parts, [row_of(*each) for each in keyed])
        return [key for key, *_ in keyed]

    def put(
        self, parts: Mapping[tuple[str, str], Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
    ) -> int:
        """Store rows as ``store.rows`` makes them, in one transaction; those already there are left out.

        Args:
            parts: contents by part and digest; all that the rows refer to and the database may lack.
            rows: their columns.

        Returns:
            How many rows were new.
        """
        if not rows:
            return 0
        new_parts = {key: content for key, content in parts.items() if key not in self._known_parts}
        try:
            added = transact(self.engine, lambda connection: _insert(connection, new_parts, rows))
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError) or len(new_parts) == len(parts):
                raise
            # A part without rows was cleared away since it was written.
            self._known_parts.clear()
            added = transact(self.engine, lambda connection: _insert(connection, parts, rows))
        if _identity(self._file) != self._file_identity:
            raise StoreError(
                f"the latency database {self._file} was removed or replaced while it was open",
                why="its disk is gone, or its folder was deleted; what was written since is lost with it",
                fix="bring the file back and repeat the command: what is missing is measured again",
            )
        self._known_parts |= {key for key in parts if key[0] != "workload"}
        return added

    def find(self, key: Key) -> Outcome | None:
        """What is known under exactly this key: its newest outcome by when it was measured, or ``None``.

        Measurements that are invalid or have a wide interval, and failures that may pass, settle nothing and
        are left out. Of measurements that are not valid, the newest ``MOST_DISTURBED`` are looked at.
        """
        is_invalid = measurements.c.verdict == Verdict.INVALID.value
        may_pass = measurements.c.reasons[0]["code"].as_string().in_(PASSING_CODES)
        lasting = not_(is_invalid | ((measurements.c.verdict == FAILED) & may_pass))
        found = self._outcomes(key, lasting, limit=MOST_DISTURBED)
        return next((each for each in found if not isinstance(each, Measurement) or each.sharp), None)

    def find_disturbed(self, key: Key) -> Measurement | None:
        """The measurement under exactly this key that was disturbed the least, where ``find`` finds none.

        That is the one whose interval is narrowest relative to its value.
        """
        disturbed = measurements.c.verdict.in_((Verdict.INVALID.value, Verdict.DEGRADED.value))
        found = self._outcomes(key, disturbed, limit=MOST_DISTURBED)
        ran = (outcome for outcome in found if isinstance(outcome, Measurement))
        return min(ran, key=lambda each: each.latency.relative_width, default=None)

    def _outcomes(self, key: Key, wanted: ColumnElement[bool], *, limit: int) -> Iterator[Outcome]:
        """The newest sound outcomes under a key, by when they were measured.

        What says that it was measured in the future comes last: the clock was wrong, or has been set back.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        contents = [PARTS[part].c.content.label(f"{part}_content") for part in IDENTITIES]
        query = select(measurements, *contents)
        for part in IDENTITIES:
            query = query.outerjoin(PARTS[part], measurements.c[part] == PARTS[part].c.digest)
        query = (
            query.where(*(measurements.c[part] == getattr(key, part) for part in PARTS), wanted)
            .order_by(
                measurements.c.started_at > now, measurements.c.started_at.desc(), measurements.c.id.desc()
            )
            .limit(limit)
        )
        found = seen = 0
        while found < limit and (rows := fetch(self.engine, query.offset(seen))):
            seen += len(rows)
            for row in rows:
                parts = {part: row[f"{part}_content"] for part in IDENTITIES}
                damage = damage_of(dict(row)) or next(filter(None, _damages(key, parts)), None)
                if damage is not None:
                    _log.warning("measurement %d is passed over: %s; see lathe db check", row["id"], damage)
                    continue
                found += 1
                yield outcome_of(dict(row), parts)

    def explain_miss(self, key: Key) -> str:
        """Why ``find(key)`` gives nothing: which parts of the key differ from the nearest row, and how."""
        if self.find(key) is not None:
            return "nothing is missing: an outcome is stored under this key"
        stored = self.count()
        return transact(self.engine, lambda connection: explanation(connection, key, stored))

    def count(self) -> int:
        """Number of stored outcomes, failures and invalid measurements included."""
        query = select(func.count()).select_from(measurements)
        return transact(self.engine, lambda connection: connection.scalar(query)) or 0


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Which file it is, by device and inode: SQLite goes on writing to one that has been deleted."""
    try:
        state = file.stat() if file is not None else None
    except OSError:
        return None
    return None if state is None else (state.st_dev, state.st_ino)


def _damages(key: Key, parts: Mapping[str, Any]) -> Iterator[str | None]:
    for part, content in parts.items():
        yield damage_of_part(part, getattr(key, part), content, None)


def _insert(
    connection: Connection,
    parts: Mapping[tuple[str, str], Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> int:
    """Insert what is not there yet, and put it in the place of what is there and damaged; the number of both.

    Parts go in a fixed order, so that writers on a server do not wait for one another in a circle.
    """
    require_known_schema(connection)
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for part, table in PARTS.items():
        contents: list[dict[str, Any]] = [
            {"digest": digest, "content": content}
            for (name, digest), content in sorted(parts.items(), key=lambda item: item[0])
            if name == part
        ]
        if part == "workload":
            contents = [{**each, "content_digest": value_digest(each["content"])} for each in contents]
        if contents:
            connection.execute(insert(table).on_conflict_do_nothing(index_elements=["digest"]), contents)
            _mend_parts(connection, part, contents)
    statement = insert(measurements).on_conflict_do_nothing(index_elements=["digest"])
    counted = {"preserve_rowcount": True}
    added = connection.execute(statement, list(rows), execution_options=counted).rowcount
    return added if added == len(rows) else added + _mend_rows(connection, rows)


def _mend_parts(connection: Connection, part: str, contents: Sequence[Mapping[str, Any]]) -> None:
    table = PARTS[part]
    given = {each["digest"]: each for each in contents}
    query = select(table).where(table.c.digest.in_(given))
    for there in connection.execute(query).mappings().all():
        digest = there["digest"]
        if damage_of_part(part, digest, there["content"], there.get("content_digest")) is not None:
            connection.execute(update(table).where(table.c.digest == digest).values(given[digest]))


def _mend_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    given = {row["digest"]: row for row in rows}
    query = select(measurements).where(measurements.c.digest.in_(given))
    damaged = [
        row for row in map(dict, connection.execute(query).mappings().all()) if damage_of(row) is not None
    ]
    if damaged:
        with changeable(connection, measurements):
            for row in damaged:
                changed = update(measurements).where(measurements.c.id == row["id"])
                connection.execute(changed.values(given[row["digest"]]))
    return len(damaged)
