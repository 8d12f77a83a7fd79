"""Latencies of many architectures at once: a few lookups and sums in place of a walk through the blocks.

Which decisions decide a block together is found out from the space itself, by changing two of them at a time.
The space is then a sum over groups of decisions that belong together, less what neighbouring groups share (a
junction tree of a decomposable model; Lauritzen, "Graphical Models", 1996), each tabulated once.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_db.models import NetworkModel
from pipeline.spaces.base import Architecture, Block, Choice, Space, architecture_of

LARGEST_GROUP = 200_000
"""Combinations of choices in a group; more would not be tabulated in seconds."""

_ANCHORS = 16
_CHECKS = 64

Integers = NDArray[np.integer]
Floats = NDArray[np.float64]


class NotDecomposable(Exception):
    """Too many decisions of the space act on the same blocks."""


@dataclass(frozen=True)
class _Part:
    """A function of some decisions: ``values[sum(strides * choices)]``, which is added or taken off."""

    decisions: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: tuple[Counter[Block], ...]
    sign: int


class Decomposition:
    """A space as sums over groups of decisions, for any space whose blocks depend on few of them each.

    Raises:
        NotDecomposable: a group is larger than ``LARGEST_GROUP``.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._names = [decision.name for decision in space.decisions]
        self._choices = [decision.choices for decision in space.decisions]
        self._base = (0,) * len(self._choices)
        groups = _groups(len(self._names), self._interactions())
        self._parts = [self._part(group, sign) for group, sign in groups]
        self._check()

    def indices(self, architectures: Sequence[Architecture]) -> NDArray[np.uint16]:
        """The choices as indices, shape (n_architectures, n_decisions)."""
        positions = [{choice: i for i, choice in enumerate(choices)} for choices in self._choices]
        rows = [
            [position[choice] for position, (_, choice) in zip(positions, architecture.choices, strict=True)]
            for architecture in architectures
        ]
        return np.array(rows, np.uint16).reshape(len(rows), len(positions))

    def sample(self, generator: np.random.Generator, count: int) -> NDArray[np.uint16]:
        """Indices of architectures drawn uniformly, shape (count, n_decisions)."""
        columns = [generator.integers(len(choices), size=count) for choices in self._choices]
        return np.stack(columns, axis=1).astype(np.uint16)

    def totals(self, cost: Callable[[Block], float]) -> Callable[[Integers], Floats]:
        """A function from indices, shape (n, n_decisions), to totals of ``cost``, shape (n,).

        A total is infinite when one of the architecture's blocks has an infinite cost.
        """
        costs: dict[Block, float] = {}
        for part in self._parts:
            for block in itertools.chain.from_iterable(part.blocks):
                if block not in costs:
                    costs[block] = cost(block)
        finite = {block: value if value < math.inf else 0.0 for block, value in costs.items()}
        failed = {block: float(value == math.inf) for block, value in costs.items()}
        sums = self._gatherer(finite)
        if not any(failed.values()):
            return sums
        failures = self._gatherer(failed)
        return lambda indices: np.where(failures(indices) > 0.5, np.inf, sums(indices))

    def _gatherer(self, costs: dict[Block, float]) -> Callable[[Integers], Floats]:
        tables = [
            part.sign * np.array([sum(costs[b] * n for b, n in cell.items()) for cell in part.blocks])
            for part in self._parts
        ]

        def total(indices: Integers) -> Floats:
            result = np.zeros(len(indices))
            for part, table in zip(self._parts, tables, strict=True):
                flat = np.zeros(len(indices), np.int32)
                for decision, stride in zip(part.decisions, part.strides, strict=True):
                    flat += indices[:, decision] * np.int32(stride)
                result += table[flat]
            return result

        return total

    def _blocks(self, choices: Sequence[int]) -> Counter[Block]:
        return Counter(self.space.blocks(self._architecture(choices)))

    def _architecture(self, indices: Sequence[int]) -> Architecture:
        chosen: list[tuple[str, Choice]] = [
            (name, choices[index])
            for name, choices, index in zip(self._names, self._choices, indices, strict=True)
        ]
        return architecture_of(self.space, chosen)

    def _interactions(self) -> set[tuple[int, int]]:
        """Pairs of decisions whose effects on the blocks do not add up, seen from random architectures."""
        generator = random.Random(0)
        found: set[tuple[int, int]] = set()
        pairs = list(itertools.combinations(range(len(self._choices)), 2))
        for _ in range(_ANCHORS):
            start = [generator.randrange(len(choices)) for choices in self._choices]
            steps = [generator.randrange(1, max(2, len(choices))) for choices in self._choices]
            end = [(s + d) % len(c) for s, d, c in zip(start, steps, self._choices, strict=True)]
            base = self._blocks(start)
            single = [self._blocks(_with(start, {i: end[i]})) for i in range(len(start))]
            for one, other in pairs:
                if (one, other) in found or start[one] == end[one] or start[other] == end[other]:
                    continue
                both = self._blocks(_with(start, {one: end[one], other: end[other]}))
                if both + base != single[one] + single[other]:
                    found.add((one, other))
        return found

    def _part(self, group: tuple[int, ...], sign: int) -> _Part:
        sizes = [len(self._choices[decision]) for decision in group]
        if math.prod(sizes) > LARGEST_GROUP:
            raise NotDecomposable(f"{math.prod(sizes)} combinations of {len(group)} decisions act together")
        strides = [math.prod(sizes[position + 1 :]) for position in range(len(sizes))]
        cells = [
            self._blocks(_with(self._base, dict(zip(group, choices, strict=True))))
            for choices in itertools.product(*map(range, sizes))
        ]
        return _Part(group, tuple(strides), tuple(cells), sign)

    def _check(self) -> None:
        """Compare with the blocks themselves: an interaction that is rare may have been missed."""
        generator = random.Random(1)
        for _ in range(_CHECKS):
            choices = [generator.randrange(len(each)) for each in self._choices]
            total: Counter[Block] = Counter(self._blocks(choices))
            for part in self._parts:
                cell = part.blocks[
                    sum(choices[d] * stride for d, stride in zip(part.decisions, part.strides, strict=True))
                ]
                for block, count in cell.items():
                    total[block] -= part.sign * count
            if any(total.values()):
                raise NotDecomposable("decisions act together that did not seem to")


class VectorisedModel:
    """Estimates of a network model for choices of a space, given as indices."""

    def __init__(self, decomposition: Decomposition, model: NetworkModel) -> None:
        self.model = model
        self._totals = decomposition.totals(lambda block: model.block_cost_ns(block.identity))

    def values_ns(self, indices: Integers) -> Floats:
        """Predicted latencies, shape (n,), of indices (n, n_decisions); infinite where one cannot run.

        The interval is a value divided and multiplied by ``model.upper_factor``.
        """
        return self._totals(indices) + self.model.fixed_ns


def _with(choices: Sequence[int], changes: dict[int, int]) -> list[int]:
    return [changes.get(index, choice) for index, choice in enumerate(choices)]


def _groups(count: int, edges: set[tuple[int, int]]) -> list[tuple[tuple[int, ...], int]]:
    """Groups to add (+1) and shared parts to take off (-1).

    Decisions are taken out one by one, each time that with the fewest neighbours, which then become
    neighbours of one another; it makes a group with them, and they are what it shares with the rest.
    """
    neighbours: dict[int, set[int]] = {node: set() for node in range(count)}
    for one, other in edges:
        neighbours[one].add(other)
        neighbours[other].add(one)
    signs: Counter[tuple[int, ...]] = Counter()
    while neighbours:
        node = min(neighbours, key=lambda each: (len(neighbours[each]), each))
        around = neighbours.pop(node)
        signs[tuple(sorted({node, *around}))] += 1
        if neighbours:
            signs[tuple(sorted(around))] -= 1
        for one in around:
            neighbours[one] |= around - {one}
            neighbours[one].discard(node)
    return [(group, sign) for group, sign in signs.items() if sign]
