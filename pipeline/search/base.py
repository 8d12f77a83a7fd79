"""The small protocols that fit together into a search: rater, latency model, explorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from latency_db.estimate import Estimate
from pipeline.spaces.base import Architecture


@dataclass(frozen=True)
class Rating:
    """How good an architecture seems: larger is better; ``spread`` is one standard error, if known."""

    value: float
    spread: float | None = None


class Rater(Protocol):
    """Rates an architecture, for example by its accuracy after a short distillation."""

    def rate(self, architecture: Architecture) -> Rating:
        """Rate one architecture. The same architecture and seed give the same rating."""
        ...


class LatencyModel(Protocol):
    """Predicts the latency of whole networks on one target."""

    def estimate(self, architectures: Sequence[Architecture]) -> Sequence[Estimate]:
        """One estimate per architecture, in the same order."""
        ...


class Explorer(Protocol):
    """Proposes architectures and learns from their ratings: ask and tell, with a state that can be saved."""

    def ask(self) -> Architecture:
        """The next architecture to rate; always inside every budget's upper bound."""
        ...

    def tell(self, architecture: Architecture, rating: Rating) -> None:
        """Report a rating. The k-th tell answers the k-th ask."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON state from which ``restore`` continues exactly."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        ...
