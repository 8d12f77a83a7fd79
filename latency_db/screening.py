"""What is wrong with a published table of latencies, found before it is kept.

Four faults are common in them: whole-millisecond values, which cap every rank correlation; values that no run
can have; failed runs that were kept as data; and sums of block times in place of measured networks. Memory
stays bounded: medians and fits are taken from evenly spaced rows of a large table.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_db.evidence import Flag

FAILED_SHARE = 0.2
"""A network that takes less than this share of its device's median did not run, or not whole."""

_WHOLE_SHARE = 0.9
_FEW = 20
_ADDITIVE_R2 = 0.9999
_KEPT = 1 << 16
_KEPT_NETWORKS = 4096
_KEPT_NAMES = 2_000_000


@dataclass(frozen=True)
class Cell:
    """One latency of a table as it was read.

    Attributes:
        row: of the file, from 0.
        latency_ns: ``nan`` where the file has no value.
        choices: of the architecture, one number for each decision; empty for a block.
    """

    row: int
    device: str
    workload: str
    latency_ns: float
    count: int | None = None
    variance_ns2: float | None = None
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
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
        self._names: dict[int, float] = {}

    @property
    def cells(self) -> int:
        """How many were seen."""
        return sum(device.cells for device in self._devices.values())

    def see(self, cells: Sequence[Cell]) -> None:
        """Take in further cells."""
        for cell in cells:
            device = self._devices.setdefault(cell.device, _Device())
            device.see(cell)
            if not cell.choices:
                self._note_name(cell, device)

    def median_ns(self) -> float:
        """Median of all latencies that can be one; ``nan`` if there is none."""
        kept = [value for device in self._devices.values() for value in device.values.kept]
        return float(np.median(kept)) if kept else math.nan

    def flag(self, cell: Cell) -> Flag:
        """How to store a cell, once all were seen."""
        if math.isnan(cell.latency_ns):
            return "missing"
        if not _is_time(cell.latency_ns):
            return "impossible"
        return "failed-run" if cell.latency_ns < self._devices[cell.device].failed_below_ns() else ""

    def count_failed(self, cells: Sequence[Cell]) -> None:
        """Count failed runs in a second look at all cells, since they are only known from the median."""
        for cell in cells:
            self._devices[cell.device].failed += self.flag(cell) == "failed-run"

    def findings(self) -> list[Finding]:
        """Everything that is wrong, device by device."""
        return [
            Finding(name, code, count, device.cells, detail)
            for name, device in self._devices.items()
            for code, count, detail in device.findings()
        ]

    def _note_name(self, cell: Cell, device: _Device) -> None:
        name = hash((cell.device, cell.workload))
        if name in self._names:
            device.duplicates += 1
            device.contradictions += self._names[name] != cell.latency_ns
        elif len(self._names) < _KEPT_NAMES:
            self._names[name] = cell.latency_ns


class _Device:
    """What is kept of one device's latencies."""

    def __init__(self) -> None:
        self.cells = self.missing = self.impossible = self.whole = self.failed = 0
        self.duplicates = self.contradictions = 0
        self.values = _Sample(_KEPT)
        self.networks = _Sample(_KEPT_NETWORKS)
        self._failed_below_ns: float | None = None

    def see(self, cell: Cell) -> None:
        self.cells += 1
        if math.isnan(cell.latency_ns):
            self.missing += 1
        elif not _is_time(cell.latency_ns):
            self.impossible += 1
        else:
            self.whole += abs(cell.latency_ns / 1e6 - round(cell.latency_ns / 1e6)) < 1e-9
            self.values.see(cell.latency_ns)
            if cell.choices:
                self.networks.see(cell.latency_ns, cell.choices)

    def failed_below_ns(self) -> float:
        """Zero for blocks, whose latencies differ by far more than those of networks of one space."""
        if self._failed_below_ns is None:
            networks = self.networks.kept
            enough = len(networks) >= _FEW
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
        if self.duplicates:
            said = f"{self.duplicates} rows repeat an earlier one, {self.contradictions} with another latency"
            found.append(("duplicate", self.duplicates, said))
        return found

    def _additive_r2(self) -> float:
        """How much of the variance of networks that were not fitted a sum over their choices explains."""
        chosen = [
            (value, choices)
            for value, choices in zip(self.networks.kept, self.networks.labels, strict=True)
            if value >= self.failed_below_ns()
        ]
        if not chosen:
            return 0.0
        latency = np.array([value for value, _ in chosen])
        choices = np.array([each for _, each in chosen])
        columns = [choices[:, [d]] == np.unique(choices[:, d]) for d in range(choices.shape[1])]
        terms = np.hstack([np.ones((len(latency), 1)), *columns]).astype(float)
        half = len(latency) // 2
        if half < 2 * terms.shape[1]:
            return 0.0
        order = np.random.default_rng(0).permutation(len(latency))
        fitted, left_out = order[:half], order[half:]
        weights = np.linalg.lstsq(terms[fitted], latency[fitted], rcond=None)[0]
        variance = float(latency[left_out].var())
        return (
            1 - float(np.mean((latency[left_out] - terms[left_out] @ weights) ** 2)) / variance
            if variance
            else 0.0
        )


class _Sample:
    """Evenly spaced values of a long sequence, at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.kept = array("d")
        self.labels: list[tuple[int, ...]] = []
        self._limit = limit
        self._every = 1
        self._seen = 0

    def see(self, value: float, label: tuple[int, ...] = ()) -> None:
        if self._seen % self._every == 0:
            self.kept.append(value)
            self.labels.append(label)
            if len(self.kept) > self._limit:
                self.kept, self.labels = self.kept[::2], self.labels[::2]
                self._every *= 2
        self._seen += 1


def _is_time(latency_ns: float) -> bool:
    return 0 < latency_ns < math.inf
