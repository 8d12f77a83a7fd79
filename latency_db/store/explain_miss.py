"""Why a lookup gives nothing: which parts of the key differ from the nearest stored row, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from latency_db.store.keys import Key
from latency_db.store.schema import PARTS, measurements

_UNKNOWN: Mapping[str, Any] = {}


@dataclass(frozen=True)
class KeyDifference:
    """One field of one part of the key: what is stored and what is asked for.

    ``field`` is empty where only digests are known of what is asked for; ``stored`` is then the whole part.
    """

    part: str
    field: str
    stored: Any
    wanted: Any

    def __str__(self) -> str:
        if not self.field:
            return f"stored is {self.stored}, and what is asked for has never been stored"
        return f"{self.field} {self.stored!r} is stored, {self.wanted!r} is asked for"


def differences(connection: Connection, key: Key) -> list[KeyDifference]:
    """How ``key`` differs from the nearest one that has rows; empty if it has rows itself, or none has any.

    The nearest is one of the same workload if there is one; then the one that differs in the fewest parts, in
    the fewest fields, and was measured last.
    """
    stored = _stored_keys(connection, key, of_workload=True) or _stored_keys(
        connection, key, of_workload=False
    )
    if not stored or key in stored:
        return []
    fewest = min(len(_differing(key, other)) for other in stored)
    contents = _Contents(connection, key)
    candidates = [other for other in stored if len(_differing(key, other)) == fewest]
    return min((contents.differences(other) for other in candidates), key=len)


def explanation(connection: Connection, key: Key, stored: int) -> str:
    """The differences in words; ``stored`` is the number of outcomes in the database."""
    if not stored:
        return "the database is empty"
    found = differences(connection, key)
    if not found:
        return "it was measured under this key, but never validly"
    by_part: dict[str, list[KeyDifference]] = {}
    for difference in found:
        by_part.setdefault(difference.part, []).append(difference)
    new = "this workload was never measured; " if by_part.pop("workload", None) else ""
    said = "; ".join(f"the {part} differs: {', '.join(map(str, each))}" for part, each in by_part.items())
    if not new:
        return said
    return new + (
        f"the nearest of the others: {said}" if said else "others were, on this runtime, device and protocol"
    )


def _stored_keys(connection: Connection, key: Key, *, of_workload: bool) -> list[Key]:
    """Distinct keys, newest first; of other workloads only one for each of the other parts' combinations."""
    parts = [measurements.c[part] for part in PARTS]
    newest = func.max(measurements.c.started_at).desc(), func.max(measurements.c.id).desc()
    if of_workload:
        query = select(*parts).where(measurements.c.workload == key.workload).group_by(*parts)
    else:
        query = select(func.min(measurements.c.workload), *parts[1:]).group_by(*parts[1:])
    return [Key(*row) for row in connection.execute(query.order_by(*newest))]


def _differing(key: Key, other: Key) -> list[str]:
    return [part for part in PARTS if getattr(key, part) != getattr(other, part)]


class _Contents:
    """Contents of parts by digest, each read once; what is asked for is taken from the key if it has it."""

    def __init__(self, connection: Connection, key: Key) -> None:
        self._connection = connection
        self._key = key
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}

    def differences(self, other: Key) -> list[KeyDifference]:
        found = []
        for part in _differing(self._key, other):
            stored = self._content(part, getattr(other, part))
            wanted = self._key.contents.get(part) or self._content(part, getattr(self._key, part))
            if wanted is _UNKNOWN:
                found.append(KeyDifference(part, "", stored, None))
                continue
            found += [
                KeyDifference(part, name, _plain(stored.get(name)), _plain(wanted.get(name)))
                for name in sorted(stored.keys() | wanted.keys())
                if _plain(stored.get(name)) != _plain(wanted.get(name))
            ] or [KeyDifference(part, "content", getattr(other, part), getattr(self._key, part))]
        return found

    def _content(self, part: str, digest: str) -> Mapping[str, Any]:
        if (part, digest) not in self._known:
            table = PARTS[part]
            content = self._connection.scalar(select(table.c.content).where(table.c.digest == digest))
            self._known[part, digest] = content if isinstance(content, dict) else _UNKNOWN
        return self._known[part, digest]


def _plain(value: Any) -> Any:
    """A tuple as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
