from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import TeacherError
from pipeline.methods.subgraph.structures import find_structures, removed
from pipeline.spaces.teacher.config import Structure
from tests.pipeline.methods.subgraph.networks import (
    SHAPE,
    WITH_SCALES,
    Bottleneck,
    Reused,
    bottlenecks,
    branches,
    fused,
    group_normed,
    grouped,
    images,
    inverted,
    multihead,
    plain,
    resnet,
    separate,
    transformer,
)


def named(network: nn.Module) -> dict[str, Structure]:
    return {each.name: each for each in find_structures(network, SHAPE)}


def test_channels_of_a_plain_network_are_found_but_not_its_logits() -> None:
    found = named(plain())
    assert {name: each.count for name, each in found.items()} == {"0": 8, "3": 12}
    assert found["0"].gated == ("1",)


def test_channels_that_a_residual_couples_are_one_structure() -> None:
    found = named(bottlenecks())
    assert found["0"].count == 12
    assert set(found["0"].gated) == {"1", "3.norm3", "4.norm3"}
    assert found["3.reduce"].gated == ("3.norm1",)
    assert found["3"].kind == found["4"].kind == "block"


def test_depthwise_channels_are_gated_behind_their_last_normalisation() -> None:
    found = named(inverted())
    assert found["2.expand.0"].gated == ("2.depthwise.1",)
    assert found["2.squeeze"].count == 4


def test_of_a_transformer_widths_and_whole_layers_are_found_but_not_the_tokens_channels() -> None:
    found = named(transformer())
    assert found["layers.0"].gated == ("layers.0.attention.project", "layers.0.perceptron.3")
    assert found["layers.1.perceptron.1"].count == 16
    assert "patches" not in found


@pytest.mark.parametrize(("network", "heads"), [(separate, 3), (fused, 4), (multihead, 3)])
def test_of_attention_heads_are_found_beside_widths_and_layers(
    network: Callable[[], nn.Module], heads: int
) -> None:
    found = named(network())
    for layer in ("layers.0", "layers.1"):
        expected = Structure(f"{layer}.attention", "heads", heads, (f"{layer}.attention.values",))
        assert found[f"{layer}.attention"] == expected
        assert found[f"{layer}.perceptron.1"].count == 16
        assert found[layer].kind == "block"
    assert len(found) == 6


def test_all_heads_of_an_attention_cannot_be_removed() -> None:
    teacher = fused()
    with pytest.raises(ValueError, match=r"all heads of layers\.0\.attention"):
        removed(teacher, SHAPE, find_structures(teacher, SHAPE), {"layers.0.attention": []})


def test_padded_shortcuts_leave_the_channels_inside_blocks_alone_removable() -> None:
    found = named(resnet())
    assert "conv1" not in found
    assert {name for name, each in found.items() if each.kind == "channels"} == {
        "layer1.0.conv1",
        "layer2.0.conv1",
        "layer3.0.conv1",
    }
    assert found["layer1.0"].kind == "block"
    assert "layer2.0" not in found


def test_of_a_grouped_convolution_whole_groups_are_found_with_the_layer_before() -> None:
    found = named(grouped())
    assert found["3.reduce.0"] == Structure("3.reduce.0", "groups", 5, ("3.norm",))
    assert found["0"].kind == "channels"
    teacher = grouped()
    smaller = removed(teacher, SHAPE, tuple(found.values()), {"3.reduce.0": [1, 4]})
    layer = smaller.get_submodule("3.grouped")
    assert (layer.groups, layer.in_channels, tuple(layer.weight.shape)) == (2, 6, (6, 3, 3, 3))
    assert torch.equal(layer.weight, teacher.get_submodule("3.grouped").weight[[3, 4, 5, 12, 13, 14]])


def test_of_a_group_norm_whole_groups_are_found_so_that_the_others_keep_their_statistics() -> None:
    found = named(group_normed())
    assert found["0"] == Structure("0", "groups", 4, ("1", "3.second.1", "4.second.1"))
    assert found["3.first.0"].kind == found["4.first.0"].kind == "groups"
    assert found["3"].gated == ("3.second.1",)
    smaller = removed(group_normed(), SHAPE, tuple(found.values()), {"4.first.0": [0]})
    assert (smaller[4].first[1].num_groups, smaller[4].first[1].num_channels) == (1, 4)


def test_channels_that_leave_before_a_norm_of_their_own_are_gated_at_both_places() -> None:
    found = named(branches())
    assert found["0"].gated == ("1", "3.wide.1", "3.thin.1", "3.alone", "4.wide.1", "4.thin.1", "4.alone")


@pytest.mark.parametrize("network", WITH_SCALES)
@settings(max_examples=5)
@given(data=st.data())
def test_removing_what_is_silenced_leaves_the_outputs_as_they_were(
    network: Callable[[], nn.Module], data: st.DataObject
) -> None:
    teacher = network()
    structures = find_structures(teacher, SHAPE)
    kept = {}
    for each in structures:
        least = 0 if each.kind == "block" else 1
        parts = st.sets(st.integers(0, each.count - 1), min_size=least)
        kept[each.name] = sorted(data.draw(parts, label=each.name))
    smaller = removed(teacher, SHAPE, structures, kept)
    with torch.no_grad():
        for each in structures:
            gone = [part for part in range(each.count) if part not in kept[each.name]]
            for name in each.gated:
                for parameter in teacher.get_submodule(name).parameters():
                    parameter.view(each.count, -1)[gone] = 0
        torch.testing.assert_close(smaller(images()), teacher(images()), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in smaller.parameters()) <= sum(p.numel() for p in teacher.parameters())


def test_the_network_itself_is_not_changed() -> None:
    teacher = plain()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    removed(teacher, SHAPE, find_structures(teacher, SHAPE), {"0": [1, 2]})
    torch.testing.assert_close(teacher.state_dict(), before)


def test_a_layer_that_is_called_twice_is_refused() -> None:
    with pytest.raises(TeacherError, match="nothing can be removed"):
        find_structures(Reused(), SHAPE)


def test_layers_that_share_their_weights_are_left_alone() -> None:
    teacher = bottlenecks()
    first, second = teacher[3], teacher[4]
    assert isinstance(first, Bottleneck)
    assert isinstance(second, Bottleneck)
    second.conv.weight, second.norm3.weight = first.conv.weight, first.norm3.weight
    # Channels into and out of the convolution, those that end in the norm, and both blocks.
    with pytest.raises(TeacherError, match="nothing can be removed") as caught:
        find_structures(teacher, SHAPE)
    assert "weights that others have too" in caught.value.why
    first.norm3.weight = nn.Parameter(first.norm3.weight.detach().clone())
    assert set(named(teacher)) == {"0", "3", "4"}


def test_all_channels_of_a_layer_cannot_be_removed() -> None:
    teacher = plain()
    with pytest.raises(ValueError, match="all channels of 0"):
        removed(teacher, SHAPE, find_structures(teacher, SHAPE), {"0": []})
