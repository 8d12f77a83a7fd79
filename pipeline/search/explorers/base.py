"""What explorers within budgets share: no architecture is asked twice, and the state is JSON."""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from pipeline.search.base import Rating, SearchExhausted
from pipeline.search.constraints import Constraints
from pipeline.search.reach import ENUMERATION_LIMIT
from pipeline.spaces.base import Architecture, architecture_of

TRIES = 100


class ConstrainedExplorer(ABC):
    """Base of explorers that propose within ``constraints``; a subclass writes ``proposals`` and may learn.

    A new architecture is looked for among ``TRIES`` proposals, then, in a space of at most
    ``ENUMERATION_LIMIT`` architectures, among all that are left.

    Raises:
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(self, constraints: Constraints, seed: int) -> None:
        constraints.certificate.require_reachable()
        self.constraints = constraints
        self.generator = random.Random(seed)
        self._asked: list[Architecture] = []
        self._told = 0

    @abstractmethod
    def proposals(self) -> Iterator[Architecture]:
        """Endless proposals within the budgets, best first; the first that is new is taken."""

    def learn(self, architecture: Architecture, rating: Rating) -> None:  # noqa: B027 (a hook, not a duty)
        """Take in one rating."""

    def learned(self) -> dict[str, Any]:
        """What ``learn`` took in, as JSON."""
        return {}

    def relearn(self, learned: dict[str, Any]) -> None:  # noqa: B027 (a hook, not a duty)
        """Continue from what ``learned`` returned."""

    def ask(self) -> Architecture:
        """The next architecture to rate, within every budget and never asked before.

        Raises:
            SearchExhausted: nothing new is left.
        """
        asked = set(self._asked)
        tried = itertools.islice(self.proposals(), TRIES)
        architecture = next((proposal for proposal in tried if proposal not in asked), None)
        if architecture is None:
            architecture = self._any_left(asked)
        self._asked.append(architecture)
        return architecture

    def tell(self, architecture: Architecture, rating: Rating | None) -> None:
        """Report a rating, or None for a failure.

        Raises:
            ValueError: the architecture is not the one that the same ask gave.
        """
        if self._told >= len(self._asked) or self._asked[self._told] != architecture:
            raise ValueError(f"tell {self._told + 1} does not answer ask {self._told + 1}")
        self._told += 1
        if rating is not None:
            self.learn(architecture, rating)

    def state(self) -> dict[str, Any]:
        """JSON state from which ``restore`` continues exactly."""
        version, internal, gauss_next = self.generator.getstate()
        return {
            "generator": [version, list(internal), gauss_next],
            "asked": [to_pairs(architecture) for architecture in self._asked],
            "told": self._told,
            "learned": self.learned(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        version, internal, gauss_next = state["generator"]
        self.generator.setstate((version, tuple(internal), gauss_next))
        self._asked = [architecture_of(self.constraints.space, pairs) for pairs in state["asked"]]
        self._told = state["told"]
        self.relearn(state["learned"])

    def _any_left(self, asked: set[Architecture]) -> Architecture:
        if self.constraints.space.count() <= ENUMERATION_LIMIT:
            left = [member for member in self.constraints.members if member not in asked]
            if left:
                return self.generator.choice(left)
        raise SearchExhausted(f"all architectures within the budgets were asked ({len(asked)})")


def to_pairs(architecture: Architecture) -> list[list[Any]]:
    """The choices as JSON; ``architecture_of`` reads them."""
    return [list(pair) for pair in architecture.choices]
