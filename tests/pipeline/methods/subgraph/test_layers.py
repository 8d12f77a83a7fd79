from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.methods.subgraph.layers import graph_layers, parts_of
from pipeline.teachers.exported import load_exported
from pipeline.teachers.rebuilding import rebuild_layers
from tests.pipeline.methods.subgraph.networks import SHAPE, fused, images, inverted, projected, resnet
from tests.pipeline.teachers.test_exported import exported


def told(network: nn.Module, *blocks: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(each.name, each.kind, each.after) for each in graph_layers(network, blocks, ())]


def test_layers_of_a_residual_network_follow_each_other_and_meet_in_sums() -> None:
    assert told(resnet(), "layer1.0") == [
        ("conv1", "conv 3x3", ()),
        ("layer1.0.conv1", "conv 3x3", (0,)),
        ("layer1.0.conv2", "conv 3x3", (1,)),
        ("", "+", (2, 0)),
        ("layer2.0.conv1", "conv 3x3", (3,)),
        ("layer2.0.conv2", "conv 3x3", (4,)),
        ("", "+", (5, 3)),
        ("layer3.0.conv1", "conv 3x3", (6,)),
        ("layer3.0.conv2", "conv 3x3", (7,)),
        ("", "+", (8, 6)),
        ("linear", "linear", (9,)),
    ]


def test_a_sum_is_known_by_the_module_around_it() -> None:
    sums = [each.around for each in graph_layers(resnet(), (), ()) if not each.name]
    assert sums == ["layer1.0", "layer2.0", "layer3.0"]


def test_branches_and_gates_are_followed() -> None:
    assert ("3.project", "conv 1x1", (0,)) in told(projected())
    kinds = [kind for _, kind, _ in told(inverted())]
    assert kinds.count("×") == 1
    assert kinds.count("+") == 1


def test_a_sum_of_an_exported_graph_is_one_too(tmp_path: Path) -> None:
    file = exported(tmp_path / "teacher.pt2", resnet(), (2, *SHAPE), open_batch=True)
    network = nn.Sequential(load_exported(file))
    rebuild_layers(network, images(2))
    assert [kind for name, kind, _ in told(network) if not name] == ["+", "+", "+"]


def test_attention_is_one_layer_with_heads() -> None:
    layers = told(fused())
    assert ("layers.0.attention", "attention", (0,)) in layers
    assert not any(name.startswith("layers.0.attention.") for name, _, _ in layers)
    assert parts_of(fused())["layers.0.attention"] == (4, "heads")


def test_the_beginning_of_a_unit_is_a_layer_though_it_only_scales() -> None:
    assert "norm" not in {each.name for each in graph_layers(fused(), (), ())}
    assert "norm" in {each.name for each in graph_layers(fused(), (), ("norm",))}


def test_a_block_that_cannot_be_followed_counts_as_one_layer() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return images + self.conv(images) if images.sum() > 0 else images

    network = nn.Sequential(nn.Conv2d(3, 3, 1), Deciding(), nn.Conv2d(3, 2, 1))
    assert torch.isfinite(network(torch.zeros(1, 3, 4, 4))).all()
    assert told(network, "1") == [("0", "conv 1x1", ()), ("1", "deciding", (0,)), ("2", "conv 1x1", (1,))]
