"""What follows from a space's decisions alone: drawing, changing, joining, counting, listing, encoding.

A decision may depend on one earlier decision, so decisions form a forest; where one is not to be made, an
architecture has its first choice.
"""

from __future__ import annotations

import functools
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.spaces.base import Architecture, Choice, Decision


class DecisionSpace(ABC):
    """Base of spaces in which every combination of choices is an architecture; a ``SearchSpace``.

    A subclass gives ``decisions``. What is computed from them is kept, so they must not change.
    """

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, in a fixed order; one that depends on another stands after it."""

    def count(self) -> int:
        """Number of architectures, exactly."""
        return self._forest.count()

    def sample(self, generator: random.Random) -> Architecture:
        """Draw uniformly."""
        return self._filled({}, self._forest.draw(generator))

    def mutate(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """Change one decision that is made and has a choice; draw those that are to be made because of it."""
        changeable = [d for d in self.made(architecture) if len(d.choices) > 1]
        if not changeable:
            return architecture
        decision = generator.choice(changeable)
        others = [choice for choice in decision.choices if choice != architecture[decision.name]]
        drawn = self._forest.draw(generator) if self._forest.conditional else iter(())
        return self._changed(architecture, decision, generator.choice(others), dict(drawn))

    def crossover(
        self, architecture: Architecture, other: Architecture, generator: random.Random
    ) -> Architecture:
        """Each decision from either parent with equal chances, or from the only one that makes it."""
        made, made_by_other = ({d.name for d in self.made(each)} for each in (architecture, other))
        chosen: dict[str, Choice] = {}
        for decision in self.decisions:
            name = decision.name
            only = (name in made) != (name in made_by_other)
            first = name in made if only else generator.random() < 0.5
            chosen[name] = (architecture if first else other)[name]
        return self._filled(chosen, iter(()))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every other choice of each decision that is made; what is to be made because of it is the first."""
        for decision in self.made(architecture):
            for choice in decision.choices:
                if choice != architecture[decision.name]:
                    yield self._changed(architecture, decision, choice, {})

    def members(self) -> Iterator[Architecture]:
        """Every architecture, once, the last decision changing fastest."""
        if not self._forest.conditional:
            names = [decision.name for decision in self.decisions]
            for choices in itertools.product(*(decision.choices for decision in self.decisions)):
                yield Architecture(tuple(zip(names, choices, strict=True)))
            return
        yield from map(self._architecture, self._combinations(0, {}))

    def encode(self, architecture: Architecture) -> NDArray[np.float32]:
        """One-hot choices, shape (sum of the numbers of choices,); zeros for decisions that are not made."""
        chosen = {decision.name: architecture[decision.name] for decision in self.made(architecture)}
        return np.array(
            [
                decision.name in chosen and choice == chosen[decision.name]
                for decision in self.decisions
                for choice in decision.choices
            ],
            np.float32,
        )

    def made(self, architecture: Architecture) -> list[Decision]:
        """The decisions that are to be made, in order."""
        chosen = dict(architecture.choices)
        return [decision for decision in self.decisions if self._forest.is_made(decision, chosen)]

    @functools.cached_property
    def _forest(self) -> _Forest:
        return _Forest(self.decisions)

    def _changed(
        self, architecture: Architecture, decision: Decision, choice: Choice, drawn: Mapping[str, Choice]
    ) -> Architecture:
        if not self._forest.conditional:
            return architecture.with_choice(decision.name, choice)
        kept = {d.name: architecture[d.name] for d in self.made(architecture)}
        return self._filled({**kept, decision.name: choice}, iter(drawn.items()))

    def _filled(self, chosen: Mapping[str, Choice], otherwise: Iterator[tuple[str, Choice]]) -> Architecture:
        """``chosen`` where a decision is made, else ``otherwise``, else the first choice."""
        wanted = {**dict(otherwise), **chosen}
        filled: dict[str, Choice] = {}
        for decision in self.decisions:
            first = decision.choices[0]
            made = self._forest.is_made(decision, filled)
            filled[decision.name] = wanted.get(decision.name, first) if made else first
        return self._architecture(filled)

    def _combinations(self, index: int, chosen: dict[str, Choice]) -> Iterator[dict[str, Choice]]:
        if index == len(self.decisions):
            yield chosen
            return
        decision = self.decisions[index]
        made = self._forest.is_made(decision, chosen)
        for choice in decision.choices if made else decision.choices[:1]:
            yield from self._combinations(index + 1, {**chosen, decision.name: choice})

    def _architecture(self, chosen: Mapping[str, Choice]) -> Architecture:
        return Architecture(tuple((decision.name, chosen[decision.name]) for decision in self.decisions))


class _Forest:
    """Decisions as trees: below a choice stand the decisions that are to be made because of it.

    Raises:
        ValueError: a name or a choice stands twice, or a condition names no earlier decision or choice.
    """

    def __init__(self, decisions: tuple[Decision, ...]) -> None:
        self._decisions = {decision.name: decision for decision in decisions}
        if len(self._decisions) != len(decisions):
            raise ValueError("two decisions have one name")
        self._roots: list[Decision] = []
        self._below: dict[tuple[str, Choice], list[Decision]] = {}
        earlier: dict[str, Decision] = {}
        for decision in decisions:
            if not decision.choices or len(set(decision.choices)) != len(decision.choices):
                raise ValueError(f"the choices of {decision.name} are none, or not different")
            condition = decision.condition
            if condition is None:
                self._roots.append(decision)
            elif condition.decision not in earlier or not set(condition.choices) <= set(
                earlier[condition.decision].choices
            ):
                raise ValueError(f"{decision.name} depends on what is no earlier decision or no choice of it")
            else:
                for choice in condition.choices:
                    self._below.setdefault((condition.decision, choice), []).append(decision)
            earlier[decision.name] = decision
        self._counts: dict[str, list[int]] = {}

    @property
    def conditional(self) -> bool:
        """Whether any decision depends on another."""
        return bool(self._below)

    def is_made(self, decision: Decision, chosen: Mapping[str, Choice]) -> bool:
        """Whether the decision is to be made, given the earlier ones."""
        condition = decision.condition
        if condition is None:
            return True
        above = self._decisions[condition.decision]
        return chosen[above.name] in condition.choices and self.is_made(above, chosen)

    def count(self) -> int:
        """Number of combinations."""
        return self._product(self._roots)

    def draw(self, generator: random.Random) -> Iterator[tuple[str, Choice]]:
        """One of all combinations, each equally likely: its decisions that are to be made."""
        waiting = list(reversed(self._roots))
        while waiting:
            decision = waiting.pop()
            counts = self._by_choice(decision)
            equal = min(counts) == max(counts)
            choice = (
                generator.choice(decision.choices)
                if equal
                else decision.choices[_draw_index(counts, generator)]
            )
            yield decision.name, choice
            waiting += reversed(self._below.get((decision.name, choice), []))

    def _by_choice(self, decision: Decision) -> list[int]:
        if decision.name not in self._counts:
            self._counts[decision.name] = [
                self._product(self._below.get((decision.name, choice), [])) for choice in decision.choices
            ]
        return self._counts[decision.name]

    def _product(self, decisions: list[Decision]) -> int:
        result = 1
        for decision in decisions:
            result *= sum(self._by_choice(decision))
        return result


def _draw_index(counts: list[int], generator: random.Random) -> int:
    """An index with chances as ``counts``, which may be larger than a float can say."""
    number = generator.randrange(sum(counts))
    for index, count in enumerate(counts):
        number -= count
        if number < 0:
            return index
    raise AssertionError("the number is below the sum")
