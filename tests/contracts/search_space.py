"""What every search space must satisfy. Inherit ``SearchSpaceContract`` and give a ``space`` fixture."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from pipeline.spaces.base import Architecture, SearchSpace, check_architecture

DRAWS = 20
ENUMERABLE = 5_000


class SearchSpaceContract:
    @pytest.fixture
    def space(self) -> SearchSpace:
        raise NotImplementedError("a subclass gives the space")

    @pytest.fixture
    def generator(self) -> random.Random:
        return random.Random(0)

    def test_space_can_be_searched(self, space):
        assert isinstance(space, SearchSpace)

    def test_decisions_have_distinct_names_and_distinct_choices(self, space):
        assert len({decision.name for decision in space.decisions}) == len(space.decisions) > 0
        for decision in space.decisions:
            assert len(set(decision.choices)) == len(decision.choices) > 0

    def test_sample_gives_members_and_repeats_for_a_seed(self, space):
        drawn = [space.sample(generator) for generator in [random.Random(3)] for _ in range(DRAWS)]
        again = [space.sample(generator) for generator in [random.Random(3)] for _ in range(DRAWS)]
        assert drawn == again
        for architecture in drawn:
            check_architecture(space, architecture)
        assert len(set(drawn)) <= space.count()

    def test_mutate_gives_another_member_where_there_is_one(self, space, generator):
        for _ in range(DRAWS):
            parent = space.sample(generator)
            child = space.mutate(parent, generator)
            check_architecture(space, child)
            assert (child != parent) == (space.count() > 1)

    def test_crossover_of_one_architecture_is_itself(self, space, generator):
        for _ in range(DRAWS):
            parent = space.sample(generator)
            assert space.crossover(parent, parent, generator) == parent

    def test_crossover_has_every_choice_from_a_parent(self, space, generator):
        for _ in range(DRAWS):
            one, other = space.sample(generator), space.sample(generator)
            child = space.crossover(one, other, generator)
            check_architecture(space, child)
            first = {decision.name: decision.choices[0] for decision in space.decisions}
            for name, choice in child.choices:
                assert choice in (one[name], other[name], first[name])

    def test_neighbours_are_other_members_and_differ(self, space, generator):
        architecture = space.sample(generator)
        neighbours = list(space.neighbours(architecture))
        assert architecture not in neighbours
        assert len(set(neighbours)) == len(neighbours)
        assert bool(neighbours) == (space.count() > 1)
        for neighbour in neighbours:
            check_architecture(space, neighbour)

    def test_members_are_as_many_as_count_says_and_differ(self, space):
        members = list(itertools.islice(space.members(), ENUMERABLE))
        assert len(set(members)) == len(members) == min(space.count(), ENUMERABLE)
        for member in members[:DRAWS]:
            check_architecture(space, member)

    def test_encode_tells_architectures_apart(self, space, generator):
        drawn = {space.sample(generator) for _ in range(DRAWS)}
        codes = [space.encode(architecture) for architecture in drawn]
        assert {code.dtype for code in codes} == {np.dtype(np.float32)}
        assert len({code.shape for code in codes}) == 1
        assert len({code.tobytes() for code in codes}) == len(drawn)

    def test_architectures_are_identified_by_their_choices(self, space, generator):
        drawn = [space.sample(generator) for _ in range(DRAWS)]
        assert len({a.identity for a in drawn}) == len({a.choices for a in drawn}) == len(set(drawn))

    def test_architectures_are_understood_when_made_from_their_choices(self, space, generator):
        architecture = space.sample(generator)
        remade = Architecture(tuple((name, choice) for name, choice in architecture.choices))
        check_architecture(space, space.mutate(remade, generator))
        assert (space.encode(remade) == space.encode(architecture)).all()
