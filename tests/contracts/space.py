"""What every space of networks must satisfy. Inherit ``SpaceContract`` and give a ``space`` fixture."""

from __future__ import annotations

import pytest
import torch

from devices.digests import canonical_json
from pipeline.spaces.base import Architecture, Block, Space, check_architecture
from tests.contracts.search_space import DRAWS, SearchSpaceContract


def made(space: Space, architecture: Architecture) -> set[str]:
    """Names of the decisions that are to be made in an architecture."""
    names: set[str] = set()
    for decision in space.decisions:
        above = getattr(decision, "condition", None)
        if above is None or (above.decision in names and architecture[above.decision] in above.choices):
            names.add(decision.name)
    return names


class SpaceContract(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        raise NotImplementedError("a subclass gives the space")

    def test_space_satisfies_the_protocol(self, space):
        assert isinstance(space, Space)

    def test_description_is_json_and_does_not_change(self, space):
        assert canonical_json(space.description) == canonical_json(space.description)

    def test_reference_is_a_member(self, space):
        check_architecture(space, space.reference())

    def test_mutate_changes_exactly_one_decision_to_an_allowed_choice(self, space, generator):
        has_choice = any(len(decision.choices) > 1 for decision in space.decisions)
        for _ in range(DRAWS):
            parent = space.sample(generator)
            child = space.mutate(parent, generator)
            check_architecture(space, child)
            in_both = made(space, parent) & made(space, child)
            changed = [name for name in in_both if child[name] != parent[name]]
            assert len(changed) == (1 if has_choice else 0)

    def test_distinct_blocks_are_distinct_and_hold_every_block_drawn(self, space, generator):
        distinct = space.distinct_blocks()
        identities = [block.identity for block in distinct]
        assert len(set(identities)) == len(identities)
        assert distinct == space.distinct_blocks()
        for architecture in (space.reference(), *(space.sample(generator) for _ in range(DRAWS))):
            assert {block.identity for block in space.blocks(architecture)} <= set(identities)

    def test_extreme_is_not_beaten_by_any_architecture_drawn(self, space, generator):
        def cost(block: Block) -> float:
            return float(int(block.identity[:6], 16))

        def total(architecture) -> float:
            return sum(map(cost, space.blocks(architecture)))

        smallest, largest = space.extreme(cost), space.extreme(cost, largest=True)
        for _ in range(5 * DRAWS):
            assert total(smallest) <= total(space.sample(generator)) <= total(largest)

    def test_extreme_keeps_out_a_block_of_infinite_cost_when_it_can(self, space, generator):
        architecture = space.sample(generator)
        kept = {block.identity for block in space.blocks(architecture)}
        found = space.extreme(lambda block: 1.0 if block.identity in kept else float("inf"))
        assert {block.identity for block in space.blocks(found)} <= kept

    def test_build_gives_finite_logits_for_the_input_shape(self, space, generator):
        images = torch.randn(2, *space.input_shape)
        for architecture in (space.reference(), space.sample(generator)):
            network = space.build(architecture).eval()
            logits = network(images)
            assert logits.dtype == torch.float32
            assert logits.ndim == 2
            assert logits.shape[0] == 2
            assert torch.isfinite(logits).all()

    def test_build_repeats_for_a_seed(self, space, generator):
        architecture = space.sample(generator)
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            states.append(space.build(architecture).state_dict())
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_build_block_runs_on_the_shape_that_the_block_names(self, space, generator):
        for block in dict.fromkeys(space.blocks(space.sample(generator))):
            output = space.build_block(block).eval()(torch.randn(2, *block.input_shape))
            assert output.shape[0] == 2

    def test_blocks_are_understood_when_an_architecture_is_made_from_its_choices(self, space, generator):
        architecture = space.sample(generator)
        remade = Architecture(tuple((name, choice) for name, choice in architecture.choices))
        assert space.blocks(remade) == space.blocks(architecture)
