"""The cells of NAS-Bench-201 as a search space: an example of a space that takes nothing from Lathe.

A cell has an operation on each of its six edges. Lathe's strategies need the methods of ``CellSpace`` and the
attributes of ``Cell`` and ``Edge``, its budgets ``TabledLatency.estimate``; nothing has to be inherited.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("0-1", "0-2", "1-2", "0-3", "1-3", "2-3")
# From the input to the output; with "none" on it, a path does not carry anything.
PATHS = ([3], [0, 4], [1, 5], [0, 2, 5])
ONE_HOT = np.eye(len(OPERATIONS), dtype=np.float32)
CODES = {operation: code for code, operation in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Edge:
    """A decision: which operation is on an edge."""

    name: str
    choices: tuple[str, ...] = OPERATIONS


@dataclass(frozen=True)
class Cell:
    """An architecture: pairs of edge and operation, in the order of ``EDGES``."""

    choices: tuple[tuple[str, str], ...]

    def __getitem__(self, edge: str) -> str:
        return self.choices[EDGES.index(edge)][1]

    def with_choice(self, edge: str, operation: str) -> Cell:
        place = EDGES.index(edge)
        return Cell((*self.choices[:place], (edge, operation), *self.choices[place + 1 :]))

    @property
    def identity(self) -> str:
        return hashlib.sha256(repr(self.choices).encode()).hexdigest()

    @property
    def number(self) -> int:
        """Place among all cells, the last edge counting fastest."""
        number = 0
        for _, operation in self.choices:
            number = len(OPERATIONS) * number + CODES[operation]
        return number


def cell(operations) -> Cell:
    return Cell(tuple(zip(EDGES, operations, strict=True)))


class CellSpace:
    """All 15 625 cells."""

    decisions = tuple(Edge(name) for name in EDGES)

    def count(self) -> int:
        return len(OPERATIONS) ** len(EDGES)

    def sample(self, generator) -> Cell:
        return cell(generator.choices(OPERATIONS, k=len(EDGES)))

    def mutate(self, architecture: Cell, generator) -> Cell:
        return generator.choice(list(self.neighbours(architecture)))

    def crossover(self, architecture: Cell, other: Cell, generator) -> Cell:
        return Cell(tuple(map(generator.choice, zip(architecture.choices, other.choices, strict=True))))

    def neighbours(self, architecture: Cell):
        for edge, present in architecture.choices:
            for operation in OPERATIONS:
                if operation != present:
                    yield architecture.with_choice(edge, operation)

    def members(self):
        return map(cell, itertools.product(OPERATIONS, repeat=len(EDGES)))

    def encode(self, architecture: Cell) -> np.ndarray:
        """One-hot operations, at half weight; the same with "none" on dead edges; counts of those: (65,)."""
        operations = np.array([CODES[operation] for _, operation in architecture.choices])
        live = np.zeros(len(EDGES), bool)
        for path in PATHS:
            if operations[path].all():
                live[path] = True
        all_edges, live_edges = ONE_HOT[operations], ONE_HOT[operations * live]
        counts = live_edges.sum(axis=0)
        return np.concatenate([all_edges.ravel() / 2, live_edges.ravel(), counts / 2])


@dataclass(frozen=True)
class Latency:
    """A latency without an interval, in nanoseconds."""

    value_ns: float

    @property
    def low_ns(self) -> float:
        return self.value_ns

    @property
    def high_ns(self) -> float:
        return self.value_ns


class TabledLatency:
    """Latencies of all cells on one device, in nanoseconds, in the order of ``Cell.number``."""

    def __init__(self, latencies_ns: np.ndarray) -> None:
        self._latencies = [Latency(value) for value in latencies_ns.tolist()]

    def estimate(self, architectures) -> list[Latency]:
        return [self._latencies[architecture.number] for architecture in architectures]
