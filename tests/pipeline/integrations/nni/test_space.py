from __future__ import annotations

import itertools
import random

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

import nni
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from pipeline.integrations.nni import NniError
from pipeline.integrations.nni import space as space_module
from pipeline.integrations.nni import survey as survey_module
from pipeline.integrations.nni.blocks import as_image, image_shape
from pipeline.integrations.nni.networks import Networks
from pipeline.integrations.nni.recording import trace
from pipeline.integrations.nni.space import ModelSpaceBlocks
from pipeline.integrations.nni.survey import survey
from pipeline.integrations.nni.trees import Fork, Leaf, follow, grow
from pipeline.integrations.nni.units import Unit, cut, mutables_of, resolve
from pipeline.progress import ConsoleReporter
from tests.pipeline.integrations.nni.nni_spaces import IMAGES, Small, TwoLayers, WithInputChoice
from tests.pipeline.integrations.nni.nni_tables import block_space

REPORTER = ConsoleReporter()
SAMPLE = {"width": 8, "depth": 2, "layer0": "k3", "layer1": "k5", "layer2": "k3", "down": 1}


def samples(space: ModelSpaceBlocks) -> list[dict[str, object]]:
    values = [mutable.values for mutable in space.mutables.values()]
    return [dict(zip(space.mutables, chosen, strict=True)) for chosen in itertools.product(*values)]


# Where a space is cut


def test_space_is_cut_where_the_fewest_variants_are_left() -> None:
    units = {str(unit): (unit.above, unit.labels, unit.variants) for unit in cut(Small())}
    assert units == {
        "stem": ((), ("width",), 2),
        "narrow": ((), ("width",), 2),
        "layers.0": ((), ("layer0",), 2),
        "layers.1": (("depth",), ("layer1",), 2),
        "layers.2": (("depth",), ("layer2",), 2),
        "down": ((), ("down",), 2),
        "mix": ((), (), 1),
        "pool": ((), (), 1),
        "dropout": ((), (), 1),
        "head": ((), (), 1),
    }


def test_choice_inside_a_candidate_is_cut_out_where_other_candidates_would_be_measured_again() -> None:
    class Nested(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            inner = [
                LayerChoice([nn.Conv2d(3, 3, k) for k in (1, 3)], label=f"inner{index}") for index in range(3)
            ]
            self.layer = LayerChoice([nn.Sequential(*inner), nn.Conv2d(3, 3, 5)], label="outer")

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    units = {str(unit): (unit.above, unit.labels) for unit in cut(Nested())}
    assert units == {
        "layer.0.0": (("outer",), ("inner0",)),
        "layer.0.1": (("outer",), ("inner1",)),
        "layer.0.2": (("outer",), ("inner2",)),
        "layer.1": (("outer",), ()),
    }


# What the networks are made of


def test_blocks_are_what_the_network_does_at_its_units() -> None:
    space, made = block_space(Small, IMAGES), Small()
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        calls.append((module, args[0]))

    for sample in random.Random(0).sample(samples(space), 20):
        network = space.networks.build(sample)
        at_units = [resolve(unit, made, network, sample) for unit in cut(made)]
        hooks = [module.register_forward_pre_hook(keep) for module in at_units if module is not None]
        network(IMAGES[:1])
        for hook in hooks:
            hook.remove()
        found = [trace(module, features.contiguous()).identity for module, features in calls]
        assert space.blocks_of(sample) == [identity for identity in found if identity is not None]
        calls.clear()


def test_layer_whose_input_is_shaped_by_a_choice_elsewhere_is_a_block_for_each_shape() -> None:
    space = block_space(Small, IMAGES)
    shapes = [block.shape for block in space.blocks.values() if " at mix" in block.description]
    assert sorted(shapes) == [(8, 4, 4), (8, 8, 8)]


def test_same_layer_at_two_depths_is_one_block() -> None:
    space = block_space(Small, IMAGES)
    same = space.blocks_of({**SAMPLE, "depth": 3, "layer0": "k3", "layer1": "k3", "layer2": "k5"})
    assert same[2] == same[3] != same[4]


def test_dropout_is_no_block() -> None:
    assert not any("dropout" in block.description for block in block_space(Small, IMAGES).blocks.values())


def test_choice_of_a_layer_that_is_not_there_does_not_matter() -> None:
    space = block_space(Small, IMAGES)
    without = {label: choice for label, choice in SAMPLE.items() if label != "layer2"}
    assert space.blocks_of(without) == space.blocks_of({**SAMPLE, "layer2": "k5"})


def test_calibration_plan_has_every_network_once_and_stays_the_same() -> None:
    space = block_space(Small, IMAGES)
    plan = space.calibration_plan()
    assert len({space.networks.trace(sample).identity for sample in plan}) == len(plan)
    assert len(plan) == 2 * 2 * (2 + 4 + 8)
    assert ModelSpaceBlocks(Small(), IMAGES, REPORTER).calibration_plan() == plan


def test_networks_have_one_identity_if_only_names_and_weights_differ() -> None:
    class Renamed(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.last = self.head
            del self.head

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(torch.relu(self.first(x))).mean((2, 3)))

    sample = {"a": 1, "b": 2}
    one, other = (Networks(space, IMAGES).trace(sample) for space in (TwoLayers(), Renamed()))
    assert one.identity == other.identity
    assert one.macs == 64 * (16 * 3 * 9 + 16 * 16) + 32


def test_networks_differ_if_their_forward_does() -> None:
    class Other(TwoLayers):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(torch.sigmoid(self.first(x))).mean((2, 3)))

    one, other = (
        Networks(space, IMAGES).trace({"a": 0, "b": 0}).identity for space in (TwoLayers(), Other())
    )
    assert one != other


def test_space_its_weights_and_the_random_state_are_left_as_they_are() -> None:
    space = Small().train()
    weights = {name: value.clone() for name, value in space.state_dict().items()}
    state = torch.random.get_rng_state()
    ModelSpaceBlocks(space, IMAGES, REPORTER)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in space.modules())
    assert all(torch.equal(weights[name], value) for name, value in space.state_dict().items())


def test_every_block_and_network_runs_on_the_image_that_it_is_exported_with() -> None:
    space = block_space(Small, IMAGES)
    for block in space.blocks.values():
        assert block.exportable(space.networks)(torch.zeros(1, *block.image_shape)).shape[0] == 1
    assert {block.image_shape for block in space.blocks.values() if block.shape == (8,)} == {(8, 1, 1)}
    network = as_image(space.networks.build(SAMPLE), (3, 8, 8))
    assert network(torch.zeros(1, *image_shape((3, 8, 8)))).shape == (1, 10)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_image_holds_the_values_in_their_order(shape: tuple[int, ...]) -> None:
    values = torch.randn(2, *shape)
    image = values.reshape(2, *image_shape(shape))
    assert torch.equal(as_image(nn.Identity(), shape)(image), values)


def test_what_runs_in_no_module_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    class Outside(TwoLayers):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x @ torch.ones(8, 8))

    reporter = ConsoleReporter()
    ModelSpaceBlocks(TwoLayers(), IMAGES, reporter)
    assert "multiply-accumulates" not in capfd.readouterr().err
    ModelSpaceBlocks(Outside(), IMAGES, reporter)
    assert "of a network's multiply-accumulates are done in no module" in capfd.readouterr().err


# What cannot be profiled


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (WithInputChoice, "'which' cannot be profiled: it is a CategoricalMultiple"),
        (lambda: _with(nni.uniform("rate", 0, 1)), "'rate' cannot be profiled: it is a Numerical"),
        (lambda: _with(nni.choice("pair", [(1, 2), (3, 4)])), r"'pair' cannot be profiled: .*\(1, 2\)"),
    ],
)
def test_mutable_that_cannot_be_tabulated_is_named(make, said: str) -> None:
    with pytest.raises(NniError, match=said):
        ModelSpaceBlocks(make(), IMAGES, REPORTER)


def test_space_without_a_choice_is_refused() -> None:
    class Fixed(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Conv2d(3, 3, 1)

    with pytest.raises(NniError, match="nothing to choose"):
        mutables_of(Fixed())


def test_module_that_takes_two_tensors_is_named() -> None:
    class Sum(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return one + other

    class Joined(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.sum = Sum()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.sum(x, x))

    with pytest.raises(
        NniError, match=r"'sum' cannot be measured: it is called with a float32 tensor .*, a float32"
    ):
        ModelSpaceBlocks(Joined(), IMAGES, REPORTER)


def test_inputs_that_the_space_does_not_take_are_told_by_their_shape() -> None:
    with pytest.raises(NniError) as caught:
        ModelSpaceBlocks(Small(), torch.zeros(1, 4, 8, 8), REPORTER)
    assert "(1, 4, 8, 8)" in str(caught.value)
    with pytest.raises(NniError, match="int64"):
        ModelSpaceBlocks(Small(), torch.zeros(1, 3, 8, 8, dtype=torch.int64), REPORTER)


def test_space_that_nni_cannot_freeze_is_told() -> None:
    with pytest.raises(NniError, match="NNI cannot freeze") as caught:
        ModelSpaceBlocks(_with(nni.choice("dangling", [1, 2])), IMAGES, REPORTER)
    assert "NotImplementedError" in caught.value.why


def test_space_with_a_freeze_of_its_own_is_refused() -> None:
    class Own(TwoLayers):
        def freeze(self, sample: dict[str, int]) -> nn.Module:
            return super().freeze(sample)

    with pytest.raises(NniError, match="Own cannot be profiled: it has a freeze of its own"):
        ModelSpaceBlocks(Own(), IMAGES, REPORTER)


def test_unit_that_needs_what_others_have_done_is_named() -> None:
    class Needy(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.factor

    class Joined(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.needy = Needy(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.needy.factor = 2
            return super().forward(self.needy(x))

    with pytest.raises(NniError, match="'needy' does not run by itself") as caught:
        ModelSpaceBlocks(Joined(), IMAGES, REPORTER)
    assert "factor" in caught.value.why


def test_unit_with_too_many_variants_or_shapes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(NniError, match="'first' has 3 variants"):
        patch.setattr(space_module, "MOST_VARIANTS", 2)
        ModelSpaceBlocks(TwoLayers(), IMAGES, REPORTER)
    with monkeypatch.context() as patch, pytest.raises(NniError, match="too many choices shape") as caught:
        patch.setattr(survey_module, "LARGEST", 2)
        ModelSpaceBlocks(Small(), IMAGES, REPORTER)
    assert "3 combinations of depth" in caught.value.why


def _with(mutable: nni.mutable.Mutable) -> ModelSpace:
    class Dangling(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Conv2d(3, 3, 1)
            self.add_mutable(mutable)

    return Dangling()


# Finding out what decides

CHOICES = {label: ["x", "y", "z"] for label in "abcd"}
subsets = st.lists(st.sampled_from("abcd"), unique=True, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(subsets, subsets), min_size=1, max_size=4))
def test_survey_finds_every_label_that_decides(pairs: list[tuple[list[str], list[str]]]) -> None:
    """Each unit depends on labels that are known, and on others that are not."""

    def look(sample) -> list[tuple[str, ...]]:
        return [tuple(sample[label] for label in dict.fromkeys(known + hidden)) for known, hidden in pairs]

    units = [Unit((("child", "u"),), tuple(known), (), 1) for known, _ in pairs]
    trees = survey(units, CHOICES, look, lambda done, total: None)
    for chosen in itertools.product(*CHOICES.values()):
        sample = dict(zip(CHOICES, chosen, strict=True))
        assert [follow(tree, sample) for tree in trees] == look(sample)


@given(st.lists(st.integers(0, 2), min_size=9, max_size=9))
def test_tree_gives_back_its_table(values: list[int]) -> None:
    choices = {"a": ["x", "y", "z"], "b": [1, 2, 3]}
    table = dict(zip(itertools.product(*choices.values()), values, strict=True))
    tree = grow(["a", "b"], choices, table)
    assert {(a, b): follow(tree, {"a": a, "b": b}) for a, b in table} == table


def test_tree_does_not_ask_what_does_not_matter() -> None:
    choices = {"a": [1, 2], "b": [1, 2]}
    tree = grow(["a", "b"], choices, {(1, 1): 0, (1, 2): 0, (2, 1): 0, (2, 2): 5})
    assert tree == Fork("a", ((1, Leaf(0)), (2, Fork("b", ((1, Leaf(0)), (2, Leaf(5)))))))
