from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.data.base import Preprocessing
from pipeline.errors import TeacherError
from pipeline.methods.dna.cutting import cut_teacher
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.exported import load_exported
from pipeline.teachers.resnet import resnet_cifar
from pipeline.teachers.teacher import AdaptedNetwork, Member, Teacher
from tests.pipeline.methods.dna.dna_parts import SHAPE, network


def images(shape=SHAPE, count=3):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


class Stemmed(nn.Module):
    """As ResNets for large images: a stem with one convolution and pooling, then stages of in-place ReLUs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList([self._stage(4, 4, 1), self._stage(4, 8, 2)])
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 5, 1)

    @staticmethod
    def _stage(inputs, outputs, stride):
        first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        return nn.Sequential(
            first, nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 1), nn.ReLU(inplace=True)
        )

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.pool(x)).flatten(1)


class Crossed(nn.Module):
    """A shortcut that spans every other layer: nothing inside is all that the rest depends on."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        deep = self.second(self.first(x)).mean((2, 3))
        return self.head(torch.cat([deep, x.mean((2, 3))], 1))


def test_convnet_is_cut_at_the_ends_of_its_stages():
    net = ConvNet(1, 5, width=4, depth=2).eval()
    cut = cut_teacher(net, SHAPE)
    assert cut.shapes == ((4, 8, 8), (8, 4, 4), (16, 2, 2))
    x = images()
    features = torch.relu(net.stem(x))
    for position, block in enumerate(net.blocks):
        features = block(features)
        if position % 2:
            assert torch.equal(cut.features(x)[position // 2], features)


def test_cifar_resnet_is_cut_at_the_ends_of_its_layers():
    net = resnet_cifar(8, 10, 4).eval()
    cut = cut_teacher(net, (3, 16, 16))
    assert cut.shapes == ((4, 16, 16), (8, 8, 8), (16, 4, 4))
    x = images((3, 16, 16))
    expected = net.layer2(net.layer1(torch.relu(net.bn1(net.conv1(x)))))
    assert torch.equal(cut.features(x)[1], expected)
    named = cut_teacher(net, (3, 16, 16), ["layer1", "layer2", "layer3"])
    assert named.shapes == cut.shapes
    assert named.digest == cut.digest


def test_a_stem_is_joined_with_the_first_stage_and_pooled_features_are_no_block():
    net = Stemmed().eval()
    cut = cut_teacher(net, (3, 32, 32))
    assert cut.shapes == ((4, 8, 8), (8, 4, 4))
    x = images((3, 32, 32))
    assert torch.equal(cut.features(x)[0], net.stages[0](net.stem(x)))


def test_features_are_as_computed_before_a_later_layer_works_in_place():
    net = Stemmed().eval()
    cut = cut_teacher(net, (3, 32, 32), ["stages.0.0", "stages.1.0"])
    x = images((3, 32, 32))
    assert torch.equal(cut.features(x)[0], net.stages[0][0](net.stem(x)))
    assert (cut.features(x)[0] < 0).any()


def test_exported_graph_is_cut_where_the_network_is(tmp_path: Path):
    net = network().eval()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(net, (images(),), dynamic_shapes=shapes), tmp_path / "t.pt2")
    cut, known = cut_teacher(load_exported(tmp_path / "t.pt2"), SHAPE), cut_teacher(net, SHAPE)
    assert cut.shapes == known.shapes
    for ours, theirs in zip(cut.features(images(count=5)), known.features(images(count=5)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_exported_graph_of_one_batch_size_is_refused_with_what_to_do(tmp_path: Path):
    torch.export.save(torch.export.export(network().eval(), (images(count=3),)), tmp_path / "t.pt2")
    with pytest.raises(TeacherError, match="cannot be cut") as caught:
        cut_teacher(load_exported(tmp_path / "t.pt2"), SHAPE)
    assert "dynamic_shapes" in caught.value.fix


def test_names_are_those_of_the_network_inside_its_adaption():
    net = network()
    adapted = AdaptedNetwork(net, TeacherConfig(), Preprocessing((0.5,), (0.5,)))
    cut = cut_teacher(adapted, SHAPE, ["blocks.0", "blocks.1"])
    assert cut.shapes == ((4, 8, 8), (8, 4, 4))


def test_teacher_that_resizes_is_cut_at_its_own_sizes():
    adapted = AdaptedNetwork(network(), TeacherConfig(resize=16), Preprocessing((0.5,), (0.5,)))
    assert cut_teacher(adapted, SHAPE).shapes == ((4, 16, 16), (8, 8, 8), (16, 4, 4))


def test_only_the_blocks_that_are_asked_for_are_computed():
    net = network()
    cut = cut_teacher(net, SHAPE)
    ran = []
    net.blocks[1].register_forward_pre_hook(lambda *_: ran.append(1))
    assert len(cut.features(images(), 1)) == 1
    assert not ran
    assert len(cut.features(images(), 2)) == 2
    assert ran


def test_cut_teacher_is_frozen_in_evaluation_mode_and_its_features_do_not_depend_on_the_batch():
    cut = cut_teacher(network().train(), SHAPE)
    x = images(count=4)
    together, alone = cut.features(x)[2], torch.cat([cut.features(each[None])[2] for each in x])
    assert torch.allclose(together, alone, atol=1e-6)
    assert not together.requires_grad


def test_digest_follows_weights_statistics_and_cuts():
    digests = {cut_teacher(network(seed), SHAPE).digest for seed in (0, 0, 1)}
    assert len(digests) == 2
    other = network()
    other.stem[1].running_mean += 1
    digests.add(cut_teacher(other, SHAPE).digest)
    digests.add(cut_teacher(network(), SHAPE, ["blocks.0", "blocks.1"]).digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    "make",
    [
        Crossed,
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)),
        lambda: Teacher([Member("a", network(0), "a"), Member("b", network(1), "b")]).module,
    ],
)
def test_teacher_without_stages_is_refused_with_what_was_looked_for_and_how_to_name_them(make):
    with pytest.raises(TeacherError, match="cannot be cut into blocks") as caught:
        cut_teacher(make(), SHAPE)
    assert "maps of features" in caught.value.why
    assert "cuts = [...]" in caught.value.fix


@pytest.mark.parametrize("names", [["layer9"], [], [""]])
def test_unknown_names_are_refused_with_those_there_are(names):
    with pytest.raises(TeacherError) as caught:
        cut_teacher(network(), SHAPE, names)
    assert "blocks.0" in caught.value.fix


@pytest.mark.parametrize("names", [["blocks.1", "blocks.0"], ["blocks.0", "head"]])
def test_names_out_of_order_or_without_a_map_of_features_are_refused(names):
    with pytest.raises(TeacherError, match=f"after its module {names[1]}"):
        cut_teacher(network(), SHAPE, names)
