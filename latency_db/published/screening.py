"""What is wrong with a published table of latencies, found before it is kept.

Four faults are common in them: whole-millisecond values, which cap every rank correlation; values that no run
can have; failed runs that were kept as data; and sums of block times in place of measured networks. Memory
stays bounded: medians and fits are taken from evenly spaced rows of a large table, and repeated rows are
looked for among the first ones.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_db.store.published import Flag

FAILED_SHARE = 0.2
"""A network that takes less than this share of its device's median did not run, or not whole."""

_WHOLE_SHARE = 0.9
_FEW = 20
_ADDITIVE_R2 = 0.9999
_KEPT = 1 << 16
_KEPT_NETWORKS = 4096
_KEPT_NAMES = 1_000_000


@dataclass(frozen=True)
class Cells:
    """Latencies of one device as they were read, in columns of equal length.

    Attributes:
        rows: of the file, from 0.
        workloads: as the file describes them.
        latency_ns: ``nan`` where the file has no value.
        counts: number of runs behind each, where the file says so.
        variances_ns2: their variances, where the file says so.
        choices: of networks (cells x decisions); ``None`` for blocks.
    """

    device: str
    rows: Sequence[int]
    workloads: Sequence[str]
    latency_ns: NDArray[np.float64]
    counts: Sequence[int | None] | None = None
    variances_ns2: Sequence[float | None] | None = None
    choices: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class ScreeningFinding:
    """One fault of one device's latencies.

    Attributes:
        code: ``missing``, ``impossible``, ``failed-run``, ``whole-milliseconds``, ``additive`` or
            ``duplicate``.
        count: how many of its ``cells`` values are concerned.
    """

    device: str
    code: str
    count: int
    cells: int
    detail: str


class Screening:
    """Sees every cell of a table once, then tells what is wrong and how to flag each cell."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._names_left = _KEPT_NAMES

    @property
    def cells(self) -> int:
        """How many were seen."""
        return sum(device.cells for device in self._devices.values())

    @property
    def devices(self) -> set[str]:
        """Of which something was seen."""
        return set(self._devices)

    @property
    def seeks_failed_runs(self) -> bool:
        """Some cells may be failed runs, which ``count_failed`` counts."""
        return any(device.failed_below_ns() > 0 for device in self._devices.values())

    def see(self, cells: Cells) -> None:
        """Take in further cells."""
        device = self._devices.setdefault(cells.device, _Device())
        device.see(cells)
        if cells.choices is None and self._names_left:
            named = min(self._names_left, len(cells.workloads))
            device.names.extend(map(hash, cells.workloads[:named]))
            device.named.frombytes(cells.latency_ns[:named].tobytes())
            self._names_left -= named

    def median_ns(self) -> float:
        """Median of all latencies that can be one; ``nan`` if there is none."""
        kept = np.concatenate([device.values.kept for device in self._devices.values()] or [np.empty(0)])
        return float(np.median(kept)) if len(kept) else math.nan

    def flags(self, cells: Cells) -> list[Flag]:
        """How to store each cell, once all were seen."""
        latency_ns = cells.latency_ns
        found = np.full(len(latency_ns), "", dtype=object)
        found[latency_ns < self._devices[cells.device].failed_below_ns()] = "failed-run"
        found[~_is_time(latency_ns)] = "impossible"
        found[np.isnan(latency_ns)] = "missing"
        flags: list[Flag] = found.tolist()
        return flags

    def count_failed(self, cells: Cells) -> None:
        """Count failed runs in a second look at all cells, since they are only known from the median."""
        self._devices[cells.device].failed += self.flags(cells).count("failed-run")

    def findings(self) -> list[ScreeningFinding]:
        """Everything that is wrong, device by device."""
        return [
            ScreeningFinding(name, code, count, device.cells, detail)
            for name, device in self._devices.items()
            for code, count, detail in device.findings()
        ]


class _Device:
    """What is kept of one device's latencies."""

    def __init__(self) -> None:
        self.cells = self.missing = self.impossible = self.whole = self.failed = 0
        self.values = _Sample(_KEPT)
        self.networks = _Sample(_KEPT_NETWORKS)
        self.choices = _Sample(_KEPT_NETWORKS)
        self.names, self.named = array("q"), array("d")
        self._failed_below_ns: float | None = None

    def see(self, cells: Cells) -> None:
        latency_ns = cells.latency_ns
        times = _is_time(latency_ns)
        missing = int(np.isnan(latency_ns).sum())
        self.cells += len(latency_ns)
        self.missing += missing
        self.impossible += len(latency_ns) - missing - int(times.sum())
        latency_ns = latency_ns[times]
        self.whole += int((np.abs(latency_ns / 1e6 - np.round(latency_ns / 1e6)) < 1e-9).sum())
        self.values.see(latency_ns)
        if cells.choices is not None:
            self.networks.see(latency_ns)
            self.choices.see(cells.choices[times])

    def failed_below_ns(self) -> float:
        """Zero for blocks, whose latencies differ by far more than those of networks of one space."""
        if self._failed_below_ns is None:
            enough = len(self.networks.kept) >= _FEW
            self._failed_below_ns = FAILED_SHARE * float(np.median(self.values.kept)) if enough else 0.0
        return self._failed_below_ns

    def findings(self) -> list[tuple[str, int, str]]:
        found = []
        times = self.cells - self.missing - self.impossible
        if self.missing:
            found.append(("missing", self.missing, f"{self.missing} of {self.cells} have no value"))
        if self.impossible:
            said = f"{self.impossible} of {self.cells} are no time (zero, negative or infinite), left out"
            found.append(("impossible", self.impossible, said))
        if times >= _FEW and self.whole >= _WHOLE_SHARE * times:
            step = 1e8 / float(np.median(self.values.kept))
            said = f"{self.whole} of {times} are whole milliseconds, steps of {step:.1f} % of the median"
            found.append(("whole-milliseconds", self.whole, said))
        if self.failed:
            below_ms = self.failed_below_ns() / 1e6
            line = f"{below_ms:.4g} ms, a fifth of the median"
            said = f"{self.failed} of {times} are below {line}: failed or empty runs"
            found.append(("failed-run", self.failed, said))
        if (explained := self._additive_r2()) >= _ADDITIVE_R2:
            said = f"exactly additive (R² {explained:.6f}): as sums of parts are, not measured networks"
            found.append(("additive", times, said))
        duplicates, contradictions = self._duplicates()
        if duplicates:
            said = f"{duplicates} rows repeat an earlier one, {contradictions} with another latency"
            found.append(("duplicate", duplicates, said))
        return found

    def _additive_r2(self) -> float:
        """How much of the variance of networks that were not fitted a sum over their choices explains."""
        sound = self.networks.kept >= self.failed_below_ns()
        if not sound.any():
            return 0.0
        latency, choices = self.networks.kept[sound], self.choices.kept[sound]
        levels = [np.unique(choices[:, decision]) for decision in range(choices.shape[1])]
        half = len(latency) // 2
        if half < 2 * (1 + sum(map(len, levels))):
            return 0.0
        columns = [choices[:, [decision]] == level for decision, level in enumerate(levels)]
        terms = np.hstack([np.ones((len(latency), 1)), *columns]).astype(float)
        order = np.random.default_rng(0).permutation(len(latency))
        fitted, left_out = order[:half], order[half:]
        weights = np.linalg.lstsq(terms[fitted], latency[fitted], rcond=None)[0]
        variance = float(latency[left_out].var())
        return (
            1 - float(np.mean((latency[left_out] - terms[left_out] @ weights) ** 2)) / variance
            if variance
            else 0.0
        )

    def _duplicates(self) -> tuple[int, int]:
        """Rows whose workload an earlier one described, and how many of them have another latency."""
        names, latency_ns = np.frombuffer(self.names, np.int64), np.frombuffer(self.named, np.float64)
        _, first, which = np.unique(names, return_index=True, return_inverse=True)
        other = latency_ns != latency_ns[first][which]
        other[first] = False  # A missing value does not equal itself.
        return len(names) - len(first), int(other.sum())


class _Sample:
    """Evenly spaced values (or rows) of a long sequence, at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.kept: NDArray[Any] = np.empty(0)
        self._limit = limit
        self._every = 1
        self._seen = 0

    def see(self, values: NDArray[Any]) -> None:
        chosen = values[-self._seen % self._every :: self._every]
        self._seen += len(values)
        if len(chosen):
            self.kept = np.concatenate([self.kept, chosen]) if len(self.kept) else chosen.copy()
        while len(self.kept) > self._limit:
            self.kept = self.kept[::2].copy()
            self._every *= 2


def _is_time(latency_ns: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (latency_ns > 0) & np.isfinite(latency_ns)
