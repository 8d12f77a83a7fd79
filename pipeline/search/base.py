"""The small protocols that fit together into a search: rater, latency model, explorer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from latency_db.estimate import Estimate
from pipeline.spaces.base import Architecture

Block_contra = TypeVar("Block_contra", bound=Hashable, contravariant=True)


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


@runtime_checkable
class LeveledRater(Rater, Protocol):
    """A rater that can look closer, at a higher price: a family of raters of rising fidelity."""

    @property
    def levels(self) -> int:
        """How many fidelities there are; it rates at the lowest one, 0."""
        ...

    def at(self, level: int) -> Rater:
        """The rater of one fidelity, of which a higher one costs more."""
        ...


class LatencyModel(Protocol):
    """Predicts the latency of whole networks on one target."""

    def estimate(self, architectures: Sequence[Architecture]) -> Sequence[Estimate]:
        """One estimate per architecture, in the same order; infinite where it cannot run on the target."""
        ...


@runtime_checkable
class AdditiveLatencyModel(LatencyModel, Protocol[Block_contra]):
    """A latency model in which every block adds its own share, so that extremes can be found exactly.

    For every architecture, the value of ``estimate`` is the sum of its blocks' costs and a constant, and the
    upper end is the value times ``upper_factor``.
    """

    @property
    def upper_factor(self) -> float:
        """The upper end of every estimate divided by its value."""
        ...

    def block_cost_ns(self, block: Block_contra) -> float:
        """What the block adds to a network's latency; infinite if it cannot run on the target."""
        ...


class SearchExhausted(Exception):
    """An explorer has nothing new to propose."""


class Explorer(Protocol):
    """Proposes architectures and learns from their ratings: ask and tell, with a state that can be saved.

    The same seed and the same ratings give the same proposals.
    """

    def ask(self) -> Architecture:
        """The next architecture to rate; always inside every budget's upper bound, and never asked before.

        Raises:
            SearchExhausted: every architecture within the budgets that it can find was asked.
        """
        ...

    def tell(self, architecture: Architecture, rating: Rating | None) -> None:
        """Report a rating, or None for a failure. The k-th tell answers the k-th ask."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON state from which ``restore`` continues exactly."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        ...


@runtime_checkable
class RankingExplorer(Explorer, Protocol):
    """An explorer that can say which of the rated architectures it holds for the best.

    Ratings are noisy, so the highest is likely to be flattered. An explorer that models them may know better.
    """

    def ranking(self) -> list[Architecture]:
        """Every architecture that was rated, the one held for the best first; changes nothing."""
        ...
