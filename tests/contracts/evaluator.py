"""What every evaluator must satisfy. Inherit ``EvaluatorContract``, give ``make`` and ``architectures``."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence

import pytest
import torch

from pipeline.search.base import Evaluator
from pipeline.spaces.base import Architecture


class EvaluatorContract:
    """Two evaluators of one task must agree; ``make`` gives a new one each time."""

    @pytest.fixture
    def architectures(self) -> Sequence[Architecture]:
        """A few different members of the space."""
        raise NotImplementedError("a subclass gives architectures")

    @pytest.fixture
    def one(self) -> Evaluator:
        raise NotImplementedError("a subclass makes the evaluator")

    @pytest.fixture
    def other(self) -> Evaluator:
        raise NotImplementedError("a subclass makes it again")

    def test_scores_do_not_depend_on_what_was_evaluated_or_drawn_before(
        self, one: Evaluator, other: Evaluator, architectures: Sequence[Architecture]
    ) -> None:
        forwards = [one.evaluate(each).value for each in architectures]
        torch.rand(5)
        backwards = [other.evaluate(each).value for each in reversed(architectures)]
        assert forwards == backwards[::-1]

    def test_scores_are_numbers_that_tell_architectures_apart(
        self, one: Evaluator, architectures: Sequence[Architecture]
    ) -> None:
        scores = [one.evaluate(each) for each in architectures]
        assert all(math.isfinite(score.value) for score in scores)
        assert all(score.spread is None or score.spread >= 0 for score in scores)
        assert len({score.value for score in scores}) > 1

    def test_torchs_global_generator_is_left_as_it_was(
        self, one: Evaluator, architectures: Sequence[Architecture]
    ) -> None:
        state = torch.get_rng_state()
        one.evaluate(architectures[0])
        assert torch.equal(torch.get_rng_state(), state)

    def test_an_evaluator_travels_to_other_processes(
        self, one: Evaluator, architectures: Sequence[Architecture]
    ) -> None:
        copy: Evaluator = pickle.loads(pickle.dumps(one))
        assert copy.evaluate(architectures[0]) == one.evaluate(architectures[0])
