"""What strategies within budgets share: no architecture is asked twice, and the state is JSON."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import kendalltau

from devices.digests import value_digest
from pipeline.errors import WorkFolderError
from pipeline.search.base import Score, SearchExhausted
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.budgets.extremes import ENUMERATION_LIMIT
from pipeline.spaces.base import Architecture, architecture_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIES = 100
_TRUST, _TRUSTED_FOR = 0.5, 10


class ConstrainedStrategy(ABC):
    """Base of strategies that propose within ``constraints``; a subclass writes ``proposals`` and may learn.

    A new architecture is looked for among ``TRIES`` proposals, then, in a space of at most
    ``ENUMERATION_LIMIT`` architectures, among all that are left.

    Raises:
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(self, constraints: Constraints, seed: int) -> None:
        constraints.certificate.require_reachable()
        self.constraints = constraints
        self.generator = random.Random(seed)
        self._first: tuple[Architecture, ...] = ()
        self._uses: dict[Architecture, float] = {}
        self._use_trusted: tuple[int, float] | None = None
        self._asked: dict[Architecture, None] = {}
        self._told = 0
        self._unanswered: deque[Architecture] = deque()

    @abstractmethod
    def proposals(self) -> Iterator[Architecture]:
        """Endless proposals within the budgets, best first; the first that is new is taken."""

    def learn(self, architecture: Architecture, score: Score) -> None:  # noqa: B027 (a hook, not a duty)
        """Take in one score."""

    def learned(self) -> dict[str, Any]:
        """What ``learn`` took in, as JSON."""
        return {}

    def relearn(self, learned: dict[str, Any]) -> None:  # noqa: B027 (a hook, not a duty)
        """Continue from what ``learned`` returned."""

    def pass_over(self, architectures: Iterable[Architecture]) -> None:
        """Never ask for these: their scores are known."""
        self._asked |= dict.fromkeys(architectures)

    def know(self, architecture: Architecture, score: Score) -> None:
        """Take in a score that was never asked for."""
        self.learn(architecture, score)

    def begin_with(self, architectures: Iterable[Architecture]) -> None:
        """Ask for these before any proposals, as far as they are within the budgets.

        They are no part of the state: a strategy that is restored is told them again.
        """
        self._first = tuple(architectures)

    def used_up(
        self, architecture: Architecture, known: Iterable[tuple[Architecture, float]]
    ) -> Architecture:
        """The architecture, or one near a limit that is made from it, if larger ones have had better scores.

        It is made as often as the use of the limits is trusted as a rating, see ``trust_in``.

        Args:
            architecture: within the budgets.
            known: architectures and their scores; the same until another score is told.
        """
        if self.generator.random() < self._trust_in_use(known):
            return self.constraints.fill(architecture, self.generator)
        return architecture

    def _trust_in_use(self, known: Iterable[tuple[Architecture, float]]) -> float:
        """How much the use of the limits counts as a rating; computed once for each score that is told."""
        if self._use_trusted is None or self._use_trusted[0] != self._told:
            uses, scores = [], []
            for each, score in known:
                if each not in self._uses:
                    self._uses[each] = self.constraints.use(each)
                uses.append(self._uses[each])
                scores.append(score)
            self._use_trusted = self._told, trust_in(np.array(uses), scores)
        return self._use_trusted[1]

    def ask(self) -> Architecture:
        """The next architecture to evaluate, within every budget and never asked before.

        Raises:
            SearchExhausted: nothing new is left.
        """
        architecture = self._next_new()
        self._asked[architecture] = None
        self._unanswered.append(architecture)
        return architecture

    def _next_new(self) -> Architecture:
        """The next architecture that was never asked; raises as ``ask``."""
        first = filter(self.constraints.feasible, self._first)
        tried = itertools.chain(first, itertools.islice(self.proposals(), TRIES))
        architecture = next((proposal for proposal in tried if proposal not in self._asked), None)
        return self._any_left() if architecture is None else architecture

    def tell(self, architecture: Architecture, score: Score | None) -> None:
        """Report a score, or None for a failure.

        Raises:
            ValueError: the architecture is not the one that the same ask gave, or the score is not finite.
        """
        if not self._unanswered or self._unanswered[0] != architecture:
            raise ValueError(f"tell {self._told + 1} does not answer ask {self._told + 1}")
        if score is not None and not math.isfinite(score.value):
            raise ValueError(f"the score is {score.value}; a failure is told as None")
        self._unanswered.popleft()
        self._told += 1
        if score is not None:
            self.learn(architecture, score)

    def state(self) -> dict[str, Any]:
        """JSON state from which ``restore`` continues exactly."""
        version, internal, gauss_next = self.generator.getstate()
        return {
            "of": self._identity(),
            "generator": [version, list(internal), gauss_next],
            "asked": [to_pairs(architecture) for architecture in self._asked],
            "unanswered": list(map(to_pairs, self._unanswered)),
            "told": self._told,
            "learned": self.learned(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned.

        Raises:
            WorkFolderError: it is the state of another kind of strategy, over other decisions, or of a policy
                with other settings.
        """
        if state.get("of") != self._identity():
            raise WorkFolderError(
                "The saved state belongs to another search",
                why="another kind of strategy saved it, or the space or its settings are others now",
                fix="restore it with the strategy, the space and the settings of that search, or begin anew",
            )
        version, internal, gauss_next = state["generator"]
        self.generator.setstate((version, tuple(internal), gauss_next))
        space = self.constraints.space
        self._asked = dict.fromkeys(architecture_of(space, pairs) for pairs in state["asked"])
        self._unanswered = deque(architecture_of(space, pairs) for pairs in state["unanswered"])
        self._told = state["told"]
        self.relearn(state["learned"])

    def _identity(self) -> list[str]:
        """The kind of strategy, and a digest of the decisions."""
        decisions = [[each.name, list(each.choices)] for each in self.constraints.space.decisions]
        return [type(self).__name__, value_digest(decisions)]

    def _any_left(self) -> Architecture:
        if self.constraints.space.count() <= ENUMERATION_LIMIT:
            left = [member for member in self.constraints.members if member not in self._asked]
            if left:
                return self.generator.choice(left)
        raise SearchExhausted(f"all architectures within the budgets were asked ({len(self._asked)})")


def trust_in(rating: NDArray[np.float64], scores: Sequence[float]) -> float:
    """How much a rating counts: ``trusted`` by Kendall's tau with the scores.

    Args:
        rating: of architectures, shape ``(n,)``; not a number where it failed.
        scores: of these architectures.
    """
    return trusted(tau(rating, scores), len(scores))


def trusted(correlation: float, count: int) -> float:
    """A rank correlation over so many scores, at least 0.

    Without scores it is ``_TRUST``, which counts as much as ``_TRUSTED_FOR`` of them.
    """
    return max(0.0, (count * correlation + _TRUSTED_FOR * _TRUST) / (count + _TRUSTED_FOR))


def tau_within(rating: NDArray[np.float64], scores: NDArray[np.float64], levels: NDArray[np.int_]) -> float:
    """Kendall's tau within the scores of each fidelity, each by its number of scores.

    Args:
        rating: shape ``(n,)``, as ``scores`` and ``levels``.
        scores: comparable where ``levels`` are equal.
        levels: fidelities, by number.
    """
    each = ((levels == level) for level in np.unique(levels))
    return sum(tau(rating[own], scores[own].tolist()) * float(own.mean()) for own in each)


def tau(rating: NDArray[np.float64], scores: Sequence[float]) -> float:
    """Kendall's rank correlation; 0 where one of them tells nothing apart."""
    finite = np.isfinite(rating)
    if finite.sum() < 2:
        return 0.0
    found = float(kendalltau(rating[finite], np.array(scores)[finite]).statistic)
    return 0.0 if math.isnan(found) else found


def to_pairs(architecture: Architecture) -> list[list[Any]]:
    """The choices as JSON; ``architecture_of`` reads them."""
    return [list(pair) for pair in architecture.choices]
