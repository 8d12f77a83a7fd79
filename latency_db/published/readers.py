"""What the readers of published tables have in common: units, the column of latencies, cells in batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from latency_db.published.screening import Cells

UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
"""Nanoseconds in each unit that a table may be in."""


class Batch(NamedTuple):
    """Cells of a table that are in memory at once, and how far its file has been read."""

    cells: list[Cells]
    read_bytes: int


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes:
        format: of its file.
        unit: of its latencies.
        batches: reads all of it, every time from its start.
    """

    format: str
    unit: str
    batches: Callable[[], Iterator[Batch]]


Reader = Callable[[Path, str | None, str | None], Published]
"""Opens a file of one format, with the device and the unit that were given for it, if any.

Raises ``OSError`` or ``ValueError``, now or while the cells are read, where it cannot be understood.
"""


def latency_column(names: Iterable[str], unit: str | None) -> tuple[str, str]:
    """Name and unit of the one column (or array) of latencies.

    Raises:
        ValueError: there is none or more than one, or its unit is unknown or another than the one given.
    """
    candidates = [
        (name, match[2])
        for name in names
        if (match := re.fullmatch(r"(latency|mean)(?:_(s|ms|us|ns))?", name)) is not None
    ]
    if len(candidates) != 1:
        said = ", ".join(name for name, _ in candidates) or "none"
        raise ValueError(
            f"one column must be named latency_ms or mean_ms (or with _s, _us, _ns); there is {said}"
        )
    name, named = candidates[0]
    if named is None and unit is None:
        raise ValueError(f"the column {name} names no unit, and none was given")
    if named is not None and unit not in (None, named):
        raise ValueError(f"the column {name} is in {named}, and {unit} was given")
    return name, named or unit or ""
