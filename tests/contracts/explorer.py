"""What every explorer must satisfy. Inherit ``ExplorerContract``, give ``constraints`` and ``make``."""

from __future__ import annotations

import json

import pytest

from pipeline.search.base import Explorer, Rating, SearchExhausted
from pipeline.search.constraints import Constraints
from pipeline.spaces.base import check_architecture

ROUNDS = 25


def rating_of(architecture) -> Rating | None:
    """A rating that follows from the architecture alone; one in eight fails."""
    number = int(architecture.identity[:8], 16)
    return None if number % 8 == 0 else Rating(number / 2**32)


class ExplorerContract:
    @pytest.fixture
    def constraints(self) -> Constraints:
        """More than ``ROUNDS`` members within the budgets, and at most a few hundred."""
        raise NotImplementedError("a subclass gives space and budgets")

    def make(self, constraints: Constraints, seed: int) -> Explorer:
        raise NotImplementedError("a subclass makes the explorer")

    def advance(self, explorer: Explorer, rounds: int = ROUNDS) -> list:
        asked = []
        for _ in range(rounds):
            asked.append(explorer.ask())
            explorer.tell(asked[-1], rating_of(asked[-1]))
        return asked

    def test_ask_gives_members_within_every_budget(self, constraints):
        for architecture in self.advance(self.make(constraints, 0)):
            check_architecture(constraints.space, architecture)
            assert constraints.feasible(architecture)

    def test_ask_repeats_for_a_seed_and_differs_between_seeds(self, constraints):
        assert self.advance(self.make(constraints, 1)) == self.advance(self.make(constraints, 1))
        assert self.advance(self.make(constraints, 1)) != self.advance(self.make(constraints, 2))

    def test_restore_continues_exactly_when_state_went_through_json(self, constraints):
        explorer = self.make(constraints, 3)
        self.advance(explorer, ROUNDS // 2)
        restored = self.make(constraints, 99)
        restored.restore(json.loads(json.dumps(explorer.state(), allow_nan=False)))
        assert restored.state() == explorer.state()
        assert self.advance(restored, ROUNDS // 2) == self.advance(explorer, ROUNDS // 2)

    def test_restore_continues_exactly_when_an_ask_was_not_answered(self, constraints):
        explorer = self.make(constraints, 3)
        self.advance(explorer, 3)
        open_ask = explorer.ask()
        restored = self.make(constraints, 99)
        restored.restore(json.loads(json.dumps(explorer.state(), allow_nan=False)))
        for each in (explorer, restored):
            each.tell(open_ask, rating_of(open_ask))
        assert self.advance(restored, 5) == self.advance(explorer, 5)

    def test_ask_proposes_every_member_once_then_is_exhausted(self, constraints):
        members = set(constraints.members)
        asked = self.advance(self.make(constraints, 4), len(members))
        explorer = self.make(constraints, 4)
        assert self.advance(explorer, len(members)) == asked
        assert set(asked) == members
        with pytest.raises(SearchExhausted):
            explorer.ask()

    def test_asks_may_run_ahead_of_tells(self, constraints):
        explorer = self.make(constraints, 5)
        batch = [explorer.ask() for _ in range(4)]
        assert len(set(batch)) == 4
        for architecture in batch:
            explorer.tell(architecture, rating_of(architecture))
        assert explorer.ask() not in batch

    def test_tell_refuses_an_answer_to_another_ask(self, constraints):
        explorer = self.make(constraints, 6)
        _, second = explorer.ask(), explorer.ask()
        with pytest.raises(ValueError):
            explorer.tell(second, Rating(0.5))
