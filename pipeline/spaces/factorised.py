"""A space given only by its layers and the choices of each, and a latency that adds up over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from latency_db.estimate import Estimate
from pipeline.spaces.base import Architecture, Choice, Decision
from pipeline.spaces.decisions import DecisionSpace


class Option(NamedTuple):
    """One choice in one layer: the block of a factorised space."""

    layer: str
    choice: Choice


@dataclass(frozen=True)
class FactorisedSpace(DecisionSpace):
    """Independent layers, each with its own choices; a ``BlockSpace`` whose blocks are ``Option``.

    Attributes:
        layers: choices by name of the layer, in order.
    """

    layers: Mapping[str, Sequence[Choice]]

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """A decision for each layer."""
        return tuple(Decision(name, tuple(choices)) for name, choices in self.layers.items())

    def blocks(self, architecture: Architecture) -> tuple[Option, ...]:
        """The choice of each layer."""
        return tuple(Option(name, architecture[name]) for name in self.layers)

    def distinct_blocks(self) -> tuple[Option, ...]:
        """Every choice of every layer."""
        return tuple(Option(name, choice) for name, choices in self.layers.items() for choice in choices)

    def extreme(self, cost: Callable[[Option], float], *, largest: bool = False) -> Architecture:
        """The cheapest (or dearest) choice of every layer; the first of equals."""
        pick = max if largest else min
        return Architecture(
            tuple(
                (name, pick(choices, key=lambda choice, layer=name: cost(Option(layer, choice))))  # type: ignore[misc]
                for name, choices in self.layers.items()
            )
        )


@dataclass(frozen=True)
class CostTable:
    """A latency that is a sum over layers; an ``AdditiveLatencyModel`` over ``Option``.

    Attributes:
        costs_ns: latency of every option, in nanoseconds; infinite where it cannot run.
        fixed_ns: added to every network.
        upper_factor: the upper end of every estimate divided by its value; the lower end is as far below.
        coverage: what the interval claims.

    Raises:
        ValueError: a cost is NaN or below zero, or the factor is below 1.
    """

    costs_ns: Mapping[Option, float]
    fixed_ns: float = 0.0
    upper_factor: float = 1.0
    coverage: float = 0.9

    def __post_init__(self) -> None:
        for option, cost in self.costs_ns.items():
            if not cost >= 0:
                raise ValueError(f"the cost of {option.layer}={option.choice} is {cost} ns")
        if not self.upper_factor >= 1:
            raise ValueError(f"the upper end of an estimate is {self.upper_factor} times its value")

    def block_cost_ns(self, block: Option) -> float:
        """The cost of one option.

        Raises:
            KeyError: the table lacks it.
        """
        return self.costs_ns[block]

    def estimate(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """One estimate per architecture, in order; infinite where an option cannot run.

        Raises:
            KeyError: the table lacks an option.
        """
        return list(map(self._estimate, architectures))

    def _estimate(self, architecture: Architecture) -> Estimate:
        total = self.fixed_ns + math.fsum(self.costs_ns[Option(*pair)] for pair in architecture.choices)
        return Estimate(total / self.upper_factor, total, total * self.upper_factor, self.coverage)
