"""The small protocols that fit together into a search: evaluator, latency model, strategy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from latency_db.estimate import Estimate
from pipeline.spaces.base import Architecture

Block_contra = TypeVar("Block_contra", bound=Hashable, contravariant=True)


@dataclass(frozen=True)
class Score:
    """How good an architecture seems: larger is better; ``spread`` is one standard error, if known."""

    value: float
    spread: float | None = None


class Evaluator(Protocol):
    """Evaluates an architecture, for example by its accuracy after a short distillation."""

    def evaluate(self, architecture: Architecture) -> Score:
        """Evaluate one architecture. The same architecture and seed give the same score."""
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
    """A strategy has nothing new to propose."""


class Strategy(Protocol):
    """Proposes architectures and learns from their scores: ask and tell, with a state that can be saved.

    The same seed and the same scores give the same proposals.
    """

    def ask(self) -> Architecture:
        """The next architecture to evaluate; inside every budget's upper bound, and never asked before.

        Raises:
            SearchExhausted: every architecture within the budgets that it can find was asked.
        """
        ...

    def tell(self, architecture: Architecture, score: Score | None) -> None:
        """Report a score, or None for a failure. The k-th tell answers the k-th ask."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON state from which ``restore`` continues exactly."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        ...


@runtime_checkable
class RankingStrategy(Strategy, Protocol):
    """A strategy that can say which architectures it holds for the best.

    Scores are noisy, so the highest is likely to be flattered. A strategy that models them may know better.
    """

    def ranking(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """These architectures, the one held for the best first; changes nothing."""
        ...


@dataclass(frozen=True)
class Posterior:
    """What an architecture's score is expected to be, and one standard deviation, in the unit of scores.

    Attributes:
        deviation: ``None`` where the scores do not tell it: there is one, or those around are all equal.
    """

    mean: float
    deviation: float | None


@runtime_checkable
class TrustingStrategy(RankingStrategy, Protocol):
    """A strategy that joins ratings and scores, and weighs ratings by what they were worth so far."""

    def trust(self) -> list[float]:
        """The weight of each rating, at least 0; empty before there are scores."""
        ...

    def posterior(self, architectures: Sequence[Architecture]) -> list[Posterior]:
        """Of each of these architectures; empty before there are scores."""
        ...

    def held_out(self) -> list[float]:
        """Kendall's tau between scores and what all but its own says of each.

        First with all ratings, then without each of them; empty where there are too few scores.
        """
        ...


@runtime_checkable
class FidelityStrategy(Strategy, Protocol):
    """A strategy that also chooses how dearly to evaluate, and may ask again for the same, more dearly."""

    def fidelity(self, architecture: Architecture) -> float:
        """The fidelity at which an architecture was asked for last: a share of the dearest one's cost."""
        ...

    def worth_of_fidelities(self) -> list[tuple[float, float, float | None]]:
        """Each fidelity but the dearest, and what it was worth as a rating.

        That is how far it is trusted, at least 0, and what the first of ``TrustingStrategy.held_out`` is
        without it; ``None`` where there are too few scores.
        """
        ...
