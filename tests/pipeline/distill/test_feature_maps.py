from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.distill.feature_maps import FeatureMap, feature_maps, paired, watched
from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet


def test_maps_come_in_the_order_in_which_they_are_finished() -> None:
    network = ConvNet(1, 2, width=4, depth=1).train()
    maps = feature_maps(network, torch.zeros(2, 1, 8, 8))
    assert network.training
    assert maps[0] == FeatureMap("stem.0", 4, 8, 8)
    last = {each.size: each.name for each in maps}
    assert last == {(8, 8): "blocks.0", (4, 4): "blocks.1", (2, 2): "blocks"}


def test_modules_that_run_twice_and_pooled_pixels_are_left_out() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.first = nn.ReLU(), nn.Conv2d(1, 2, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.pool(self.relu(self.first(self.relu(images))))

    assert [each.name for each in feature_maps(Twice(), torch.zeros(2, 1, 4, 4))] == ["first"]


def test_the_last_maps_of_common_sizes_are_paired() -> None:
    student = (FeatureMap("s1", 2, 8, 8), FeatureMap("s2", 2, 8, 8), FeatureMap("s3", 4, 3, 3))
    teacher = (FeatureMap("t1", 8, 8, 8), FeatureMap("t2", 9, 4, 4))
    (pair,) = paired(student, teacher)
    assert (pair.student.name, pair.teacher.name) == ("s2", "t1")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (("s1", "t2"), "differ in size"),
        (("s9", "t1"), "student has no feature map 's9'"),
        (("s1", "t9"), "teacher has no feature map 't9'"),
    ],
)
def test_named_layers_that_do_not_belong_together_are_refused(layers: tuple[str, str], said: str) -> None:
    student, teacher = [FeatureMap("s1", 2, 8, 8)], [FeatureMap("t1", 8, 8, 8), FeatureMap("t2", 8, 4, 4)]
    with pytest.raises(TeacherError, match=said):
        paired(student, teacher, layers[:1], layers[1:])


def test_networks_without_a_common_size_are_refused_with_both_lists() -> None:
    with pytest.raises(TeacherError, match="no feature maps of the same size") as caught:
        paired([FeatureMap("s", 2, 8, 8)], [FeatureMap("t", 2, 7, 7)])
    assert "8x8" in caught.value.why
    assert "7x7" in caught.value.why


def test_watched_layers_show_their_latest_output_and_lose_their_hooks() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with watched(network, ["0"]) as outputs:
        network(torch.ones(1, 1, 2, 2))
        images = torch.rand(3, 1, 2, 2)
        network(images)
        assert torch.equal(outputs["0"], network[0](images))
    assert not network[0]._forward_hooks
