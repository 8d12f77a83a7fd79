from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import TeacherError
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, _fresh, describe_teacher
from pipeline.spaces.teacher.config import TeacherSpaceConfig
from pipeline.teachers.resnet import resnet_cifar
from tests.pipeline.methods.subgraph.networks import (
    SHAPE,
    group_normed,
    grouped,
    head,
    inverted,
    plain,
    projected,
    trained,
)


def described(network: nn.Module, most_blocks: int = 200) -> TeacherSpaceConfig:
    return describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=most_blocks)


def test_a_residual_network_is_stem_blocks_and_head() -> None:
    units = described(trained(resnet_cifar(14, classes=5, width=8))).units
    assert [(unit.name, unit.block) for unit in units] == [
        ("conv1", None),
        ("layer1.0", "layer1.0"),
        ("layer1.1", "layer1.1"),
        ("layer2.0.conv1", None),
        ("layer2.1", "layer2.1"),
        ("layer3.0.conv1", None),
        ("layer3.1", "layer3.1"),
        ("linear", None),
    ]
    assert units[1].content == units[2].content
    assert len({unit.content for unit in units}) == len(units) - 1


def test_blocks_of_equal_layers_and_other_graphs_are_told_apart() -> None:
    class Twice(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
            self.last = nn.Conv2d(8, 8, 1, bias=False)
            self._factor = factor

        def forward(self, images: Tensor) -> Tensor:
            return images + self._factor * self.last(self.inner(images).relu())

    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)]
    network = trained(nn.Sequential(*stem, Twice(1.0), Twice(1.0), Twice(0.5), *head(8)))
    contents = {unit.name: unit.content for unit in described(network).units}
    assert contents["2"] == contents["3"] != contents["4"]


def test_a_channel_that_is_removed_narrows_the_next_unit() -> None:
    units = {unit.name: unit for unit in described(plain()).units}
    assert units["3"].structures == ("3", "0")
    assert units["3"].narrowed == (0, 1)
    assert units["8"].narrowed == (1,)


def test_structures_are_given_fewer_widths_until_the_blocks_are_few_enough() -> None:
    many, few = described(inverted(), 500), described(inverted(), 40)
    assert len(few.sizes) <= 40 < len(many.sizes) <= 500
    assert len(few.structures) == len(many.structures)
    for name, widths in few.widths.items():
        assert widths[-1] == next(each.count for each in few.structures if each.name == name)
        assert len(widths) <= len(many.widths[name])


def test_structures_that_units_share_are_left_out_if_that_does_not_do() -> None:
    names = {each.name for each in described(projected(), 20).structures}
    assert names == {"4", "4.reduce", "4.conv", "5", "5.reduce", "5.conv"}


def test_a_teacher_with_too_many_blocks_in_any_case_is_refused() -> None:
    with pytest.raises(TeacherError, match="distinct blocks") as raised:
        described(projected(), 2)
    assert "most_blocks" in str(raised.value.fix)


def test_a_teacher_whose_graph_depends_on_values_is_refused() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
            self.head = nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            features = self.layers(images)
            if features.sum() > 0:
                features = features.relu()
            return self.head(features.mean((2, 3)))

    with pytest.raises(TeacherError, match="graph cannot be followed"):
        described(Dynamic())


def test_the_network_is_left_as_it_was() -> None:
    network = projected()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    described(network, 60)
    torch.testing.assert_close(network.state_dict(), before)


def test_networks_begin_with_the_most_important_parts_of_the_teacher_where_importance_is_known() -> None:
    network = plain()
    config = described(network)
    importance = {each.name: torch.arange(each.count).float() for each in config.structures}
    inherited = OpenTeacherSpace(config, SHAPE, 5, lambda: network, importance)
    fresh = OpenTeacherSpace(config, SHAPE, 5, lambda: network)
    counts = {each.name: each.count for each in config.structures} | {"0": 2}
    architecture = inherited.architecture(counts)
    student = inherited.build(architecture)
    weight = network.get_parameter("0.weight")
    torch.testing.assert_close(student.get_parameter("0.weight"), weight[-2:])
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not torch.equal(fresh.build(architecture).get_parameter("0.weight"), weight[-2:])
    whole = inherited.build(inherited.reference()).eval()
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(whole(images), network.eval()(images))


@pytest.mark.parametrize("network", [grouped, group_normed])
def test_blocks_of_layers_with_groups_follow_each_other_at_every_number_of_groups(
    network: Callable[[], nn.Module],
) -> None:
    teacher = network()
    config = described(teacher, most_blocks=64)
    space = OpenTeacherSpace(config, SHAPE, 5, lambda: teacher)
    smallest = {each.name: config.widths.get(each.name, (1,))[0] for each in config.structures}
    for counts in (smallest, {each.name: each.count for each in config.structures}):
        values = torch.randn(2, *SHAPE)
        for block in space.blocks(space.architecture(counts)):
            assert tuple(values.shape[1:]) == block.input_shape
            values = space.build_block(block).eval()(values)
        assert values.shape == (2, 5)


class Bare(nn.Module):
    """Attention of torch, whose layers are parameters, and tokens with places and scales that are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.places = nn.Parameter(3 + torch.randn(1, 64, 8))
        self.scale = nn.Parameter(torch.tensor(7.0))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images).flatten(2).transpose(1, 2)
        tokens = features + self.places[:, : features.shape[1]]
        return self.classifier(self.scale * self.attention(tokens, tokens, tokens)[0].mean(1))


def test_fresh_networks_have_no_weights_of_the_teacher() -> None:
    torch.manual_seed(0)
    network = Bare()
    teacher = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in ("places", "scale"):
                parameter.fill_(0.5)
    fresh = dict(_fresh(network).named_parameters())
    assert not any((parameter == 0.5).any() for name, parameter in fresh.items() if name != "scale")
    assert not torch.isclose(fresh["places"], teacher["places"]).all()
    assert fresh["places"].mean().item() == pytest.approx(3, abs=0.2)
    assert fresh["places"].std().item() == pytest.approx(1, abs=0.2)
    # One number says nothing but its size.
    assert fresh["scale"].item() == 7
    assert all(parameter.requires_grad for parameter in fresh.values())
