from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.distill.ensemble import Ensemble, members_maps
from pipeline.distill.feature_groups import LayerGroup, layer_groups
from pipeline.distill.feature_maps import FeatureMap, feature_maps, watched
from pipeline.distill.losses import mixtures
from pipeline.distill.losses.settings import FeatureAggregationSettings
from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.resnet import resnet_cifar


def _images(channels: int, size: int, count: int = 20) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def _names(groups: tuple[LayerGroup, ...]) -> list[list[str]]:
    return [[each.name for each in group.teacher] for group in groups]


def test_a_group_has_the_ends_of_residual_blocks_and_not_their_inner_convolutions() -> None:
    maps = feature_maps(resnet_cifar(14, width=4), _images(3, 16))
    assert _names(layer_groups(maps, maps)) == [
        ["bn1", "layer1.0", "layer1.1"],
        ["layer2.0", "layer2.1"],
        ["layer3.0", "layer3.1"],
    ]


def test_in_a_plain_row_a_convolution_counts_once_with_what_follows_it() -> None:
    row = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
        *(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
        nn.MaxPool2d(2),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    maps = feature_maps(row, _images(1, 8))
    assert [each.name for each in maps if each.passage] == ["2", "6", "8"]
    assert _names(layer_groups(maps, maps)) == [["2"], ["8"]]


def test_what_is_only_handed_on_is_no_map_of_its_own() -> None:
    maps = feature_maps(ConvNet(1, 2, width=4, depth=2), _images(1, 8))
    assert _names(layer_groups(maps, maps)) == [
        ["stem", "blocks.0", "blocks.1"],
        ["blocks.2", "blocks.3"],
        ["blocks.4", "blocks.5"],
    ]


def test_of_several_widths_in_a_group_the_most_frequent_counts() -> None:
    student = (FeatureMap("s", 2, 8, 8, passage=True),)
    teacher = tuple(
        FeatureMap(f"t{number}", width, 8, 8, passage=True)
        for number, width in enumerate((16, 8, 24, 8, 24, 40))
    )
    (group,) = layer_groups(student, teacher)
    assert [each.name for each in group.teacher] == ["t2", "t4"]


def test_a_group_of_one_map_is_a_group() -> None:
    student = feature_maps(ConvNet(1, 2, width=2, depth=1), _images(1, 8))
    teacher = feature_maps(ConvNet(1, 2, width=4, depth=1), _images(1, 8))
    assert [len(group.teacher) for group in layer_groups(student, teacher)] == [2, 1, 1]


def test_networks_without_a_common_size_are_refused_with_both_lists() -> None:
    student = feature_maps(ConvNet(1, 2, width=2, depth=1), _images(1, 8))
    teacher = feature_maps(ConvNet(1, 2, width=2, depth=1), _images(1, 9))
    with pytest.raises(TeacherError, match="no layer group of the same size") as caught:
        layer_groups(student, teacher)
    assert "student's are 8x8, 4x4, 2x2, the teacher's 9x9, 5x5, 3x3" in caught.value.why


def test_statistics_are_those_of_what_a_training_sees_also_of_maps_that_are_changed_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            features = nn.functional.relu(self.first(images), inplace=True)
            return self.second(features).mean((2, 3))

    torch.manual_seed(0)
    network, images = InPlace(), _images(1, 8)
    first = next(each for each in feature_maps(network, images) if each.name == "first")
    with torch.no_grad():
        seen = nn.functional.relu(network.first(images))
    assert first.passage
    assert first.mean == pytest.approx(float(seen.mean()), rel=1e-4)
    assert first.std == pytest.approx(float(seen.std(unbiased=False)), rel=1e-4)


def test_a_mixture_of_standardised_maps_equals_the_formula_written_out() -> None:
    maps = (
        FeatureMap("a", 2, 3, 3, passage=True, mean=1.0, std=2.0),
        FeatureMap("b", 2, 3, 3, passage=True, mean=-1.0, std=0.5),
    )
    group = LayerGroup(FeatureMap("s", 2, 3, 3), maps)
    features = {"a": torch.randn(4, 2, 3, 3), "b": torch.randn(4, 2, 3, 3)}
    expected = 0.3 * (features["a"] - 1) / 2 + 0.7 * (features["b"] + 1) / 0.5
    assert torch.allclose(group.mixture((0.3, 0.7), features), expected, atol=1e-5)


def test_a_map_of_one_value_says_nothing_and_divides_by_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten())
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    (only,) = feature_maps(network, _images(1, 4))
    assert only.passage
    group = LayerGroup(only, (only,))
    assert torch.equal(group.mixture((1.0,), {"0": torch.zeros(2, 2, 4, 4)}), torch.zeros(2, 2, 4, 4))


def test_the_members_of_an_ensemble_add_their_maps_to_the_groups() -> None:
    members = [
        ConvNet(1, 2, width=4, depth=2),
        ConvNet(1, 2, width=4, depth=1),
        ConvNet(1, 2, width=6, depth=1),
    ]
    maps = members_maps(Ensemble(members).eval(), _images(1, 8))
    student = feature_maps(ConvNet(1, 2, width=2, depth=1), _images(1, 8))
    groups = layer_groups(student, maps)
    # The third is of another width.
    assert [[each.member for each in group.teacher] for group in groups] == [
        [0, 0, 0, 1, 1],
        [0, 0, 1],
        [0, 0, 1],
    ]
    assert groups[1].teacher[-1].name == "networks.1.blocks.1"
    assert mixtures.last(groups) == ((0, 0, 0.5, 0, 0.5), (0, 0.5, 0.5), (0, 0.5, 0.5))
    loss = FeatureAggregationSettings(mixture="average").make()
    loss.connect(student, maps)
    network = Ensemble(members).eval()
    with watched(network, loss.teacher_layers) as features, torch.no_grad():
        network(_images(1, 8))
        mixed = groups[0].mixture((0.2,) * 5, features)
    assert mixed.shape == (20, 4, 8, 8)
    assert abs(float(mixed.mean())) < 1e-4
