"""Reading many stored rows, with the contents of their parts, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import RowMapping, Select, select

from devices.measurement import Measurement, Outcome
from latency_db.errors import StoreError
from latency_db.store.database import fetch, pages
from latency_db.store.rows import COLUMNS, damage_of, damage_of_part, outcome_of
from latency_db.store.schema import PARTS, measurements, workloads
from latency_db.store.store import Store

_log = logging.getLogger(__name__)

BATCH = 500
"""Rows that are in memory at once; each is some kilobytes."""
_SOUND_BATCH = 16
"""Of ``sound_records``: a row that is unpacked may take megabytes."""


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted; ``None`` leaves all.

    Attributes:
        target: exactly this target.
        workload: text that the workload's description holds.
        verdict: exactly this verdict, or ``failed``.
        since: rows measured at this moment or later, as ISO 8601 in UTC.
    """

    target: str | None = None
    workload: str | None = None
    verdict: str | None = None
    since: str | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query, of measurements joined with workloads, narrowed to these rows."""
        if self.target is not None:
            query = query.where(measurements.c.target == self.target)
        if self.verdict is not None:
            query = query.where(measurements.c.verdict == self.verdict)
        if self.since is not None:
            query = query.where(measurements.c.started_at >= self.since)
        if self.workload is not None:
            description = workloads.c.content["description"].as_string()
            query = query.where(description.contains(self.workload, autoescape=True))
        return query


@dataclass(frozen=True)
class Record:
    """One stored row: its columns as they are in the database, and the content of each part of its key.

    Attributes:
        id: of the row.
        columns: all but the id; JSON that is damaged is ``None``.
        parts: content by part; ``None`` where it is damaged or missing.
        workload_digest: of the content of the workload, as stored.
    """

    id: int
    columns: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]]
    workload_digest: str | None = None

    @cached_property
    def damage(self) -> str | None:
        """What is wrong with the row; ``None`` if all of it is as it was written, and can be understood."""
        if (damage := damage_of(self.columns)) is not None:
            return damage
        for part, content in self.parts.items():
            damage = damage_of_part(part, self.columns[part], content, self.workload_digest)
            if damage is not None:
                return f"{part} {self.columns[part]}: {damage}"
        try:
            _ = self.outcome
        except StoreError as error:
            return error.why
        return None

    @cached_property
    def outcome(self) -> Outcome:
        """What was measured.

        Raises:
            StoreError: the row is damaged.
        """
        return outcome_of({**self.columns, "id": self.id}, self.parts)

    @property
    def emulated(self) -> bool:
        """Its device is emulated: its times say nothing of a real one."""
        return bool(self.parts["device"].get("emulated", False))

    @cached_property
    def latency_ns(self) -> tuple[float, float, float] | None:
        """Headline latency with its interval, as low, value, high; ``None`` where nothing was timed.

        Raises:
            StoreError: the row is damaged.
        """
        if not isinstance(self.outcome, Measurement) or not self.outcome.launches:
            return None
        try:
            latency = self.outcome.latency
        except ValueError:
            return None  # The tool that measured did not report this quantile.
        return latency.low_ns, latency.value_ns, latency.high_ns

    def keyed_parts(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The parts as ``Store.put`` takes them."""
        return {(part, self.columns[part]): content for part, content in self.parts.items()}


def records(store: Store, wanted: Filter = Filter(), *, after: int = 0) -> Iterator[list[Record]]:
    """Rows in the order they were added, in batches; rows added meanwhile may be among them.

    Damaged rows are among them too, see ``Record.damage``.

    Args:
        store: where to read.
        wanted: which rows.
        after: rows whose id is larger than this.

    Raises:
        StoreError: the database cannot be read.
    """
    query = wanted.apply(_whole_rows()).limit(BATCH)
    for rows in pages(store.engine, query, measurements.c.id, after):
        yield [_record(row) for row in rows]


def sound_records(store: Store, ids: Sequence[int]) -> Iterator[Record]:
    """The rows with these ids that are as they were written; damaged ones are passed over.

    Raises:
        StoreError: the database cannot be read.
    """
    for start in range(0, len(ids), _SOUND_BATCH):
        query = _whole_rows().where(measurements.c.id.in_(ids[start : start + _SOUND_BATCH]))
        for record in map(_record, fetch(store.engine, query)):
            if record.damage is None:
                yield record
            else:
                _log.warning(
                    "measurement %d is passed over: %s; see lathe db check", record.id, record.damage
                )


def _whole_rows() -> Select[Any]:
    """Rows of measurements with the contents of their parts."""
    contents = [table.c.content.label(f"{part}_content") for part, table in PARTS.items()]
    query = select(measurements, *contents, workloads.c.content_digest)
    for part, table in PARTS.items():
        query = query.outerjoin(table, measurements.c[part] == table.c.digest)
    return query


def _record(row: RowMapping) -> Record:
    return Record(
        row["id"],
        {name: row[name] for name in COLUMNS},
        {part: row[f"{part}_content"] for part in PARTS},
        row["content_digest"],
    )
