"""What every strategy must satisfy. Inherit ``StrategyContract``, give ``constraints`` and ``make``."""

from __future__ import annotations

import json

import pytest

from pipeline.search.base import Score, SearchExhausted, Strategy
from pipeline.search.budgets.constraints import Constraints
from pipeline.spaces.base import check_architecture

ROUNDS = 25


def score_of(architecture) -> Score | None:
    """A score that follows from the architecture alone; one in eight fails."""
    number = int(architecture.identity[:8], 16)
    return None if number % 8 == 0 else Score(number / 2**32)


class StrategyContract:
    @pytest.fixture
    def constraints(self) -> Constraints:
        """More than ``ROUNDS`` members within the budgets, and at most a few hundred."""
        raise NotImplementedError("a subclass gives space and budgets")

    def make(self, constraints: Constraints, seed: int) -> Strategy:
        raise NotImplementedError("a subclass makes the strategy")

    def advance(self, strategy: Strategy, rounds: int = ROUNDS) -> list:
        asked = []
        for _ in range(rounds):
            asked.append(strategy.ask())
            strategy.tell(asked[-1], score_of(asked[-1]))
        return asked

    def test_ask_gives_members_within_every_budget(self, constraints):
        for architecture in self.advance(self.make(constraints, 0)):
            check_architecture(constraints.space, architecture)
            assert constraints.feasible(architecture)

    def test_ask_repeats_for_a_seed_and_differs_between_seeds(self, constraints):
        assert self.advance(self.make(constraints, 1)) == self.advance(self.make(constraints, 1))
        assert self.advance(self.make(constraints, 1)) != self.advance(self.make(constraints, 2))

    def test_restore_continues_exactly_when_state_went_through_json(self, constraints):
        strategy = self.make(constraints, 3)
        self.advance(strategy, ROUNDS // 2)
        restored = self.make(constraints, 99)
        restored.restore(json.loads(json.dumps(strategy.state(), allow_nan=False)))
        assert restored.state() == strategy.state()
        assert self.advance(restored, ROUNDS // 2) == self.advance(strategy, ROUNDS // 2)

    def test_restore_continues_exactly_when_an_ask_was_not_answered(self, constraints):
        strategy = self.make(constraints, 3)
        self.advance(strategy, 3)
        open_ask = strategy.ask()
        restored = self.make(constraints, 99)
        restored.restore(json.loads(json.dumps(strategy.state(), allow_nan=False)))
        for each in (strategy, restored):
            each.tell(open_ask, score_of(open_ask))
        assert self.advance(restored, 5) == self.advance(strategy, 5)

    def test_ask_proposes_every_member_once_then_is_exhausted(self, constraints):
        members = set(constraints.members)
        asked = self.advance(self.make(constraints, 4), len(members))
        strategy = self.make(constraints, 4)
        assert self.advance(strategy, len(members)) == asked
        assert set(asked) == members
        with pytest.raises(SearchExhausted):
            strategy.ask()

    def test_asks_may_run_ahead_of_tells(self, constraints):
        strategy = self.make(constraints, 5)
        batch = [strategy.ask() for _ in range(4)]
        assert len(set(batch)) == 4
        for architecture in batch:
            strategy.tell(architecture, score_of(architecture))
        assert strategy.ask() not in batch

    def test_tell_refuses_an_answer_to_another_ask(self, constraints):
        strategy = self.make(constraints, 6)
        _, second = strategy.ask(), strategy.ask()
        with pytest.raises(ValueError):
            strategy.tell(second, Score(0.5))
