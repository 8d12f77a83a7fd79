"""The space of AKD, and the kinds of layers that it adds to the mobile space."""

import itertools
import math
import pickle
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from devices.digests import value_digest
from pipeline.spaces.base import canonical, check_architecture
from pipeline.spaces.cost import block_cost, network_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig, SpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace
from tests.contracts.space import SpaceContract
from tests.places import ROOT


def akd(side: int, channels: int = 3) -> MobileSpace:
    return MobileSpace.from_config(SpaceConfig(preset="akd"), (channels, side, side), 10)


class TestAkdSpaceAt8(SpaceContract):
    @pytest.fixture
    def space(self):
        return akd(8, channels=1)


class TestAkdSpaceAt28(SpaceContract):
    @pytest.fixture
    def space(self):
        return akd(28, channels=1)


class TestSpaceOfOneRegularNetwork(SpaceContract):
    @pytest.fixture
    def space(self):
        stage = StageConfig(
            widths=(8,),
            depths=(2,),
            kernels=(5,),
            squeeze_excite=(0.25,),
            operations=("regular",),
            skips=("pool",),
        )
        config = MobileSpaceConfig(stem_width=8, head_width=16, stages=(stage,))
        return MobileSpace.from_config(config, (3, 9, 5), 2)


stage_configs = st.builds(
    StageConfig,
    widths=st.sampled_from([(4,), (4, 8)]),
    depths=st.sampled_from([(1,), (1, 2), (2, 3)]),
    stride=st.sampled_from([1, 2]),
    kernels=st.sampled_from([(3,), (3, 5)]),
    expansions=st.sampled_from([(2,), (2, 3)]),
    squeeze_excite=st.just((0.0,)),
    operations=st.sampled_from(
        [("inverted",), ("regular",), ("separable", "regular"), ("regular", "inverted")]
    ),
    skips=st.sampled_from([("identity",), ("none",), ("pool", "none"), ("identity", "pool", "none")]),
)
small_configs = st.builds(
    MobileSpaceConfig,
    stem_width=st.sampled_from([4, 6]),
    head_width=st.just(8),
    stages=st.lists(stage_configs, min_size=1, max_size=2).filter(
        lambda stages: sum(len(s.operations) * len(s.skips) * len(s.widths) for s in stages) < 16
    ),
)


@settings(max_examples=30, deadline=None)
@given(config=small_configs, seed=st.integers(0, 2**32))
def test_extreme_count_and_distinct_blocks_equal_enumeration(config, seed):
    space = MobileSpace.from_config(config, (1, 6, 5), 3)
    members = list(space.members())
    assert space.count() == len(set(members)) == len(members)
    assert set(space.distinct_blocks()) == {block for member in members for block in space.blocks(member)}
    generator = random.Random(seed)
    costs = {block: generator.choice([generator.random(), math.inf]) for block in space.distinct_blocks()}
    totals = [sum(costs[block] for block in space.blocks(member)) for member in members]
    smallest = space.extreme(costs.__getitem__)
    check_architecture(space, smallest)
    assert sum(costs[block] for block in space.blocks(smallest)) == pytest.approx(min(totals))
    finite = {block: cost for block, cost in costs.items() if cost < math.inf}
    largest = space.extreme(lambda block: finite.get(block, -math.inf), largest=True)
    check_architecture(space, largest)
    reachable = [total for total in totals if total < math.inf]
    if reachable:
        assert sum(costs[block] for block in space.blocks(largest)) == pytest.approx(max(reachable))


@settings(max_examples=30, deadline=None)
@given(config=small_configs, seed=st.integers(0, 2**32))
def test_what_is_not_to_be_decided_changes_no_block(config, seed):
    space = MobileSpace.from_config(config, (1, 6, 5), 3)
    generator = random.Random(seed)
    architecture = space.sample(generator)
    for decision in space.decisions:
        architecture = architecture.with_choice(decision.name, generator.choice(decision.choices))
    assert space.blocks(architecture) == space.blocks(canonical(space, architecture))


@pytest.mark.parametrize("stem_width", [4, 8])
def test_different_architectures_are_different_networks(stem_width):
    stage = StageConfig(
        widths=(4,),
        depths=(1, 2),
        stride=1,
        kernels=(3,),
        expansions=(2, 3),
        squeeze_excite=(0.0,),
        operations=("inverted", "separable", "regular"),
        skips=("identity", "pool", "none"),
    )
    second = stage.model_copy(update={"widths": (8,), "stride": 2})
    config = MobileSpaceConfig(stem_width=stem_width, head_width=8, stages=(stage, second))
    space = MobileSpace.from_config(config, (1, 6, 5), 3)
    assert len({space.blocks(member) for member in space.members()}) == space.count()


@pytest.mark.parametrize(
    ("side", "blocks", "architectures"),
    [(8, 260, 21_504), (28, 532, 13_934_592), (32, 532, 13_934_592)],
)
def test_a_table_of_small_images_stays_buildable(side, blocks, architectures):
    space = akd(side)
    assert len(space.distinct_blocks()) == blocks
    assert space.count() == architectures


SIZES = {"below 16": 8, "16 to 63": 32, "from 64": 96, "64 to 127": 96, "from 128": 224}


def test_documented_sizes_of_the_presets_are_theirs():
    page = (ROOT / "docs" / "concepts" / "spaces.md").read_text("utf-8")
    rows = re.findall(r"^\| `(mobile|akd)` \| ([^|]+) \| (\d+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) == 7
    for preset, images, stages, blocks, architectures in rows:
        side = SIZES[images]
        space = MobileSpace.from_config(SpaceConfig(preset=preset), (3, side, side), 10)
        assert int(stages) == len(space.config.stages)
        assert int(blocks.replace(",", "")) == len(space.distinct_blocks())
        mantissa, _, exponent = f"{space.count():.1e}".partition("e+")
        assert architectures in (f"{space.count():,}", f"{mantissa} · 10^{int(exponent)}")


@pytest.mark.parametrize(
    ("side", "stages", "last_size"), [(8, 2, 4), (28, 3, 7), (32, 3, 8), (96, 5, 6), (224, 7, 7)]
)
def test_plan_follows_the_size_of_the_images(side, stages, last_size):
    space = akd(side)
    assert len(space.config.stages) == stages
    *_, head = space.blocks(space.reference())
    assert head.input_shape[1:] == (last_size, last_size)
    assert head.input_shape[0] == max(space.config.stages[-1].widths)


@pytest.mark.parametrize("side", [8, 28, 96, 224])
def test_every_kind_of_layer_is_built_at_usual_sizes(side):
    space = akd(side, channels=1)
    architecture = space.sample(random.Random(side))
    features = torch.randn(1, 1, side, side)
    network = space.build(architecture).eval()
    for block, module in zip(space.blocks(architecture), network, strict=True):
        assert features.shape[1:] == block.input_shape
        features = module(features)
    assert features.shape == (1, 10)


def test_reference_is_made_of_inverted_bottlenecks_that_add_their_input():
    space = akd(32)
    reference = space.reference()
    assert [reference[f"stage{n}.operation"] for n in (1, 2, 3)] == ["inverted"] * 3
    assert [reference[f"stage{n}.skip"] for n in (1, 2, 3)] == ["identity"] * 3
    assert (reference["stage3.width"], reference["stage3.depth"], reference["stage3.expansion"]) == (80, 4, 6)


def test_expansion_is_decided_only_of_an_inverted_bottleneck():
    space = akd(32)
    architecture = space.reference().with_choice("stage2.operation", "regular")
    made = {decision.name for decision in space.made(canonical(space, architecture))}
    assert "stage2.expansion" not in made
    assert "stage1.expansion" in made


def test_skip_is_decided_only_where_a_layer_can_have_one():
    space = akd(32)
    of_one_layer = space.reference().with_choice("stage2.depth", 1)
    assert "stage2.skip" not in {decision.name for decision in space.made(of_one_layer)}
    assert "stage1.skip" in {decision.name for decision in space.made(of_one_layer)}


def block_with(space, **wanted):
    return next(
        block
        for block in space.distinct_blocks()
        if wanted.items() <= {"kind": block.kind, **dict(block.arguments)}.items()
    )


def test_skip_adds_the_input_its_averages_or_nothing():
    space = akd(28, channels=1)
    torch.manual_seed(0)
    pooled = block_with(space, kind="regular", pool=3, squeeze_excite=0.25)
    module = space.build_block(pooled).eval()
    features = torch.randn(2, *pooled.input_shape)
    inside = torch.nn.functional.avg_pool2d(features, 3, 1, 1) * 9
    counted = torch.nn.functional.avg_pool2d(torch.ones_like(features), 3, 1, 1) * 9
    torch.testing.assert_close(module(features), inside / counted + module.layers(features))
    alone = block_with(space, kind="mbconv", residual=False)
    module = space.build_block(alone).eval()
    features = torch.randn(2, *alone.input_shape)
    assert torch.equal(module(features), module.layers(features))


def test_separable_convolution_is_the_block_of_an_inverted_one_without_expansion():
    stage = {"widths": (8,), "depths": (1,), "kernels": (3,)}
    separable, unexpanded = (
        MobileSpace.from_config(
            MobileSpaceConfig(stem_width=4, head_width=8, stages=(StageConfig(**stage, **change),)),
            (1, 8, 8),
            10,
        )
        for change in ({"operations": ("separable",)}, {"expansions": (1,)})
    )
    assert separable.distinct_blocks() == unexpanded.distinct_blocks()


def test_skips_and_operations_cost_what_their_layers_cost():
    space = akd(28, channels=1)
    arguments = {"kernel": 3, "out_channels": 16, "squeeze_excite": 0.0, "stride": 1}
    regular = block_with(space, kind="regular", **arguments)
    assert block_cost(regular).macs == 16 * 16 * 9 * 28 * 28
    pooled = block_with(space, kind="regular", pool=3, **arguments)
    assert block_cost(pooled) == block_cost(regular)


def test_fastest_and_largest_members_differ_by_much():
    space = akd(32)
    macs = [
        network_cost(space.blocks(space.extreme(lambda block: block_cost(block).macs, largest=largest))).macs
        for largest in (False, True)
    ]
    assert macs[0] < 0.1 * macs[1]


@pytest.mark.parametrize(
    ("side", "digest"), [(8, "ccab6bb2"), (32, "ed318677"), (96, "dfbce4d0"), (224, "00667076")]
)
def test_spaces_without_these_choices_are_described_as_ever(side, digest):
    space = MobileSpace.from_config(None, (1 if side == 8 else 3, side, side), 10)
    assert value_digest(space.description).startswith(digest)
    fields = ("kernel", "expansion", "depth", "width", "squeeze_excite")
    stages = range(1, len(space.config.stages) + 1)
    names = [f"stage{number}.{field}" for number, field in itertools.product(stages, fields)]
    assert [decision.name for decision in space.decisions] == names


def test_description_says_operations_and_skips_and_makes_the_space_again():
    space = akd(32)
    described = space.description["config"]
    assert described["stages"][0]["operations"] == ["inverted", "separable", "regular"]
    assert MobileSpaceConfig.model_validate(described) == space.config


def test_space_is_the_same_after_pickling_and_use():
    space = akd(8)
    space.extreme(lambda block: 1.0)
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    assert again.reference() == space.reference()


def test_preset_mobile_is_the_space_without_a_table():
    space = MobileSpace.from_config(SpaceConfig(preset="mobile"), (3, 32, 32), 10)
    assert space == MobileSpace.from_config(None, (3, 32, 32), 10)


def test_table_by_hand_is_the_space_of_its_choices():
    choices = {"stem_width": 8, "head_width": 16, "stages": ({"widths": (8,)},)}
    by_table = MobileSpace.from_config(SpaceConfig(**choices), (3, 9, 5), 2)
    assert by_table == MobileSpace.from_config(MobileSpaceConfig(**choices), (3, 9, 5), 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "akd", "stem_width": 8}, "a preset decides stem_width"),
        ({"stem_width": 8}, "head_width, stages must be given"),
        ({"preset": "other"}, "akd"),
    ],
)
def test_space_table_is_either_a_preset_or_choices(table, message):
    with pytest.raises(ValidationError, match=message):
        SpaceConfig(**table)


@pytest.mark.parametrize(
    "change",
    [
        {"operations": ()},
        {"operations": ("regular", "regular")},
        {"operations": ("dilated",)},
        {"skips": ("concatenation",)},
        {"operations": ("inverted", "separable"), "expansions": (1, 3)},
    ],
)
def test_stage_config_refuses_operations_and_skips_that_cannot_be_told_apart_or_built(change):
    with pytest.raises(ValidationError):
        StageConfig(widths=(8,), **change)
